"""Packed files of every format: .gz, .bz2 and .xz of one file, .zip and .tar of many.

Each member is laid down in a folder of its own that is gone afterwards, within the budget, under
the path that it has, so that times in its name and folders are found. Members that belong together
(a Zarr store, numbered pictures) are laid down at once.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from stpl_core.errors import FrameError, StplError
from stpl_core.readers.images import SUFFIXES as PICTURES
from stpl_core.safety.budget import check_bytes, copy_within
from stpl_core.safety.half_written import scratch_directory

_MAGIC: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""First bytes of a packed file."""
_ZIP = (".zip",)
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
PACKED = (".gz", ".bz2", ".xz")
"""Ends of names of one packed file."""
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError)
_MOST_MEMBERS = 100_000


def is_packed(name: str) -> bool:
    """By its name."""
    return name.lower().endswith((*PACKED, *_ZIP, *_TAR))


def is_archive(name: str) -> bool:
    """Whether it holds many files, by its name."""
    return name.lower().endswith((*_ZIP, *_TAR))


def bare_name(name: str) -> str:
    """The name of what a packed file holds, if that is one file."""
    while not is_archive(name) and name.lower().endswith(PACKED):
        name = name.rpartition(".")[0]
    return name


def names_in(path: Path) -> tuple[str, ...]:
    """Names of the files in a packed one, unpacked names; its own where it is not packed."""
    if not is_archive(path.name):
        return (bare_name(path.name),)
    stat = path.stat()
    return _listed(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _listed(path: Path, _mtime: int, _size: int) -> tuple[str, ...]:
    with _named(path), _members(path) as members:
        return tuple(bare_name(PurePosixPath(name).name) for name, _, _ in members)


@contextmanager
def unpacked(path: Path) -> Iterator[Iterator[Path]]:
    """Give the files (or the one folder) of a packed file, each there until the next is asked for.

    Raises:
        FrameError: it is damaged, or holds more than it may; names the file.
    """
    with scratch_directory("unpacked") as folder:
        inside = folder.joinpath(*Path(os.path.abspath(path)).parts[1:])
        inside.parent.mkdir(parents=True)
        with _said_of(path, inside):
            yield _laid_down(path, inside)


def path_inside(source: str, path: Path) -> str:
    """What to call a laid-down file: `path`, or `path/member`."""
    inside = Path(os.path.abspath(path))
    _, found, rest = source.partition(str(_plain_path(path, inside)))
    return f"{path}{rest}" if found else source


def _plain_path(path: Path, inside: Path) -> Path:
    """Where its content is laid down: a folder of its name, or one file."""
    return inside if is_archive(path.name) else inside.with_name(bare_name(path.name))


def _laid_down(path: Path, inside: Path) -> Iterator[Path]:
    if not is_archive(path.name):
        plain = _plain_path(path, inside)
        with _named(path), _opened(path) as packed, plain.open("wb") as out:
            copy_within(packed, out, path)
        yield plain
        return
    inside.mkdir()
    together = _belong_together(path)
    count = total = 0
    with _named(path), _members(path) as members:
        for name, size, open_member in members:
            count += 1
            total += size
            check_bytes(f"{path}: {name}", total if together else size)
            place = inside.joinpath(*PurePosixPath(name).parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as member, place.open("wb") as out:
                copy_within(member, out, f"{path}: {name}")
            if not together:
                yield place
                place.unlink()
    if not count:
        raise FrameError(f"{path} holds no file", expected="frames", fix="check the path")
    if together:
        yield _lone_folder(inside)


def _belong_together(path: Path) -> bool:
    with _named(path), _members(path) as members:
        names = [name for name, _, _ in members]
    groups = (".zgroup", ".zmetadata", "zarr.json")
    stores = any(".zarr/" in f"{name}/" or PurePosixPath(name).name in groups for name in names)
    return stores or all(name.lower().endswith((*PICTURES, ".txt", ".md")) for name in names)


def _lone_folder(folder: Path) -> Path:
    found = list(folder.iterdir())
    while len(found) == 1 and found[0].is_dir():
        folder = found[0]
        found = list(folder.iterdir())
    return folder


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """What unpacks a file as it is read: as often as its name says, and as its content is packed.

    Servers and copies leave `x.nc.gz` that is unpacked, or packed in another way, behind.
    """
    with ExitStack() as stack:
        stream: Any = stack.enter_context(path.open("rb"))
        name = path.name.lower()
        while name.endswith(PACKED):
            start = stream.peek(8)[:8]
            unpack = next((way for magic, way in _MAGIC.items() if start.startswith(magic)), None)
            if unpack is None:
                break
            stream = stack.enter_context(io.BufferedReader(unpack(stream)))
            name = name.rpartition(".")[0]
        yield stream


_Member = tuple[str, int, Callable[[], AbstractContextManager[IO[bytes]]]]


@contextmanager
def _members(path: Path) -> Iterator[Iterator[_Member]]:
    """Name, size and opener of each file in an archive; no links, nothing outside or hidden."""
    if path.name.lower().endswith(_ZIP):
        with zipfile.ZipFile(path) as packed:
            found = sorted(packed.infolist(), key=lambda one: one.filename)
            yield (
                (one.filename, one.file_size, lambda one=one: packed.open(one))  # type: ignore[misc]
                for one in _counted(found, path)
                if not one.is_dir() and _is_plain(one.filename)
            )
        return
    with tarfile.open(path) as tar:
        yield (
            (one.name, one.size, lambda one=one: tar.extractfile(one))  # type: ignore[misc]
            for one in _counted(tar, path)
            if one.isfile() and _is_plain(one.name)
        )


def _counted(members: Any, path: Path) -> Iterator[Any]:
    for n, member in enumerate(members):
        if n >= _MOST_MEMBERS:
            raise FrameError(
                f"{path} holds more than {_MOST_MEMBERS:,} files",
                expected="fewer",
                fix="unpack it, and give the folder",
            )
        yield member


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith(("/", "\\")):
        return False
    return not any(_is_hidden(part) for part in parts)


def _is_hidden(part: str) -> bool:
    of_zarr = (".zattrs", ".zgroup", ".zarray", ".zmetadata")
    return part == "__MACOSX" or (part.startswith(".") and part not in (".", *of_zarr))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Wrap what unpacks a file: damage is reported with its name."""
    try:
        yield
    except StplError:
        raise
    except (*DAMAGED, RuntimeError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(
            f"{path} cannot be unpacked: {reason}",
            expected=f"a whole {path.suffix.lower()} file without a password",
            fix="copy it again (a truncated copy reads like this), or unpack it yourself",
        ) from error


@contextmanager
def _said_of(path: Path, inside: Path) -> Iterator[None]:
    """Errors of what was laid down, said of the packed file."""
    try:
        yield
    except StplError as error:
        base = str(_plain_path(path, inside))
        texts = [text.replace(base, str(path)) for text in (error.found, error.expected, error.fix)]
        if texts == [error.found, error.expected, error.fix] or type(error).__init__ is not (
            StplError.__init__
        ):
            raise
        raise type(error)(texts[0], expected=texts[1], fix=texts[2]) from error
