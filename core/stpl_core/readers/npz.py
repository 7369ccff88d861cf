"""Opening a .npz: never unpickled, closed in any case, and held against the budget beforehand.

A member of a few kilobytes may unpack to gigabytes, and its header may state any shape.
"""

from __future__ import annotations

import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from stpl_core.safety.budget import check_bytes

_USUAL_RATIO = 8
"""A member that is packed no tighter costs its sender what it costs us."""
_MOST_MEMBERS = 4096
_DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy's reading of a header
    NotImplementedError,  # a way of packing
    RuntimeError,  # encrypted
)


@contextmanager
def open_npz(path: Path | BinaryIO) -> Iterator[Any]:
    """Give the `NpzFile`; never unpickles.

    Raises:
        FrameError: it would unpack to more than `stpl_core.safety.budget` allows.
        ValueError, OSError, EOFError: it is a .npy under a wrong name, or damaged, also where that
            shows later, as an array is read.
    """
    with path.open("rb") if isinstance(path, Path) else nullcontext(path) as file:
        try:
            start = file.read(8)
            if not start.startswith((b"PK", b"\x93NUMPY"[: len(start)])):
                raise ValueError(f"it is no .npz: it begins with {start!r}")
            if zipfile.is_zipfile(file):
                _check_claims(file, getattr(path, "name", "it"))
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array, not an archive")
            with archive:
                yield archive
        except _DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"it is damaged: {reason}") from error


def _check_claims(file: IO[bytes], path: str) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS or len({m.filename for m in members}) < len(members):
            raise ValueError(f"it holds {len(members)} members, some of one name or far too many")
        tight = [m.file_size for m in members if m.file_size > _USUAL_RATIO * m.compress_size]
        check_bytes(path, sum(tight))
        for member in members:
            if member.filename.endswith(".npy"):
                _check_header(archive, member)


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a member whose header states more values than it has bytes for."""
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"{member.filename} has the format version {version}")
        if version == (1, 0):
            shape, _, dtype = npy.read_array_header_1_0(stream)
        else:  # version 3 is version 2 with names in UTF-8
            shape, _, dtype = npy.read_array_header_2_0(stream)
        room = member.file_size - stream.tell()
        if dtype.hasobject:
            return  # never unpickled: whoever asks for it is refused, the others are read
        if any(side < 0 for side in shape):
            raise ValueError(f"{member.filename} states the shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        if size > room:
            raise ValueError(f"{member.filename} states the shape {shape} and has {room} bytes")
        if dtype.kind == "U":
            _check_letters(stream.read(size), dtype, member.filename)


def _check_letters(content: bytes, dtype: np.dtype[Any], name: str) -> None:
    """A str of numpy may be of any 32 bits; one that holds no letters fails wherever it is used."""
    codes = np.frombuffer(content, np.dtype("u4").newbyteorder(">" if dtype.str[0] == ">" else "<"))
    if (codes > sys.maxunicode).any():
        raise ValueError(f"{name} holds text that is none")
