"""Zarr stores that would run code, read other files, or claim more than they may.

Some codecs unpickle what a chunk holds, which runs code; metadata may name arrays outside the
store, and a file of it may be a link to another file. All is read here, from the metadata alone,
before Zarr opens anything.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from stpl_core.errors import FrameError
from stpl_core.safety.blosc_chunks import check_chunks
from stpl_core.safety.budget import check_bytes, check_pixels

CODECS = frozenset(
    [
        "adler32",
        "astype",
        "bitround",
        "blosc",
        "bytes",
        "bz2",
        "cast_value",
        "crc32",
        "crc32c",
        "delta",
        "fixedscaleoffset",
        "fletcher32",
        "gzip",
        "jenkins_lookup3",
        "lz4",
        "lzma",
        "packbits",
        "quantize",
        "reshape",
        "scale_offset",
        "sharding_indexed",
        "shuffle",
        "transpose",
        "vlen-bytes",
        "vlen-utf8",
        "zfpy",
        "pcodec",
        "zlib",
        "zstd",
    ]
)
"""Names of codecs that unpack numbers and text, and nothing else; `pickle`, `json2`, `msgpack2`
and `categorize` make objects."""
_MOST_METADATA = 2**26
_MOST_DEPTH = 8


def check_zarr(store: Path) -> None:
    """Refuse a store that is not plain numbers of its own.

    Raises:
        FrameError: it has another codec, objects, a link, names outside itself, or too much.
        ValueError: its metadata are damaged.
    """
    check_chunks()
    for name, document in _documents(store):
        for key, array in _arrays(name, document):
            _check_array(store, key, array)


def _documents(store: Path) -> Iterator[tuple[str, Any]]:
    """Every file of metadata; links are refused on the way."""
    for folder, folders, names in os.walk(store):
        for name in (*folders, *names):
            if os.path.islink(os.path.join(folder, name)):
                raise _refused(store, f"{name} is a link", "files of its own", "cp -rL makes some")
        for name in names:
            if name in (".zarray", ".zmetadata", ".zgroup", ".zattrs", "zarr.json"):
                path = Path(folder, name)
                check_bytes(path, path.stat().st_size, _MOST_METADATA)
                inside = path.parent.relative_to(store).as_posix()
                yield f"{inside}/{name}", json.loads(path.read_bytes())


def _arrays(name: str, document: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What describes an array, with where it is, also inside consolidated metadata."""
    if not isinstance(document, dict):
        raise ValueError(f"{name} is no JSON object")
    kind = PurePosixPath(name).name
    if kind == ".zarray" or (kind == "zarr.json" and document.get("node_type") == "array"):
        yield name, document
    together = document.get("consolidated_metadata") if kind == "zarr.json" else document
    if kind not in (".zmetadata", "zarr.json") or together is None:
        return
    inside = together.get("metadata") if isinstance(together, dict) else None
    if not isinstance(inside, dict):
        raise ValueError(f"{name} holds no metadata")
    for key, found in inside.items():
        parts = PurePosixPath(key).parts
        if key.startswith("/") or ".." in parts or "\\" in key or "\0" in key:
            raise ValueError(f"{name} names {key!r}, outside the store")
        if not isinstance(found, dict):
            raise ValueError(f"{name}: {key} is no JSON object")
        if (parts and parts[-1] == ".zarray") or found.get("node_type") == "array":
            yield key, found


def _check_array(store: Path, name: str, array: Mapping[str, Any]) -> None:
    wanted = [array.get("compressor"), *_list(array.get("filters")), *_list(array.get("codecs"))]
    for codec in wanted:
        _check_codec(store, name, codec)
    if array.get("storage_transformers"):
        raise _refused(store, f"{name} has storage transformers", "none", "write it again without")
    text = array.get("dtype", array.get("data_type"))
    if isinstance(text, str) and text.lstrip("<>|=").startswith("O") and not array.get("filters"):
        raise _refused(
            store, f"{name} holds Python objects", "numbers", "write it again as numbers"
        )
    shape, chunk = _sides(array.get("shape")), _sides(_chunk(array))
    where = f"{store}: {name}"
    check_pixels(where, *shape[-2:])
    check_pixels(f"{where}, one chunk,", math.prod(chunk))
    if array.get("dimension_separator", "/") not in ("/", "."):
        raise ValueError(f"{name} has the separator {array['dimension_separator']!r}")


def _check_codec(store: Path, name: str, codec: Any, depth: int = 0) -> None:
    if codec is None:
        return
    if not isinstance(codec, dict) or depth > _MOST_DEPTH:
        raise ValueError(f"{name} has the codec {codec!r}")
    word = str(codec.get("id", codec.get("name", "")))
    plain = word.removeprefix("numcodecs.").removeprefix("numcodecs/")
    if plain not in CODECS:
        raise _refused(
            store,
            f"{name} is packed with the codec {word[:40]!r}",
            "numbers that are packed, as by blosc, zstd or gzip",
            "write the store again with one of those",
        )
    inside = codec.get("configuration")
    if isinstance(inside, dict):
        for inner in (*_list(inside.get("codecs")), *_list(inside.get("index_codecs"))):
            _check_codec(store, name, inner, depth + 1)


def _chunk(array: Mapping[str, Any]) -> Any:
    if "chunks" in array:
        return array["chunks"]
    grid = array.get("chunk_grid", {})
    inside = grid.get("configuration", {}) if isinstance(grid, dict) else {}
    return inside.get("chunk_shape", []) if isinstance(inside, dict) else []


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
    return value


def _sides(value: Any) -> list[int]:
    sides = _list(value)
    if not all(isinstance(side, int) and 0 <= side < 2**48 for side in sides):
        raise ValueError(f"{value!r} is no shape")
    return sides


def _refused(store: Path, found: str, expected: str, fix: str) -> FrameError:
    return FrameError(f"{store}: {found}", expected=expected, fix=fix)
