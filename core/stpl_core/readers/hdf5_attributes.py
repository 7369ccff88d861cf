"""Attributes of HDF5 that the library would read from where they are not.

Text of any length lies in a heap: an attribute has its address and number there. The library
believes both, and a damaged one costs gigabytes. So they are looked at in the bytes of the file
first. HDF5 file format specification 3.0: object headers IV.A, attributes IV.A.2.m.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from mmap import mmap
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

from stpl_core.errors import FrameError

if TYPE_CHECKING:
    import h5py

Heaps = Mapping[int, Mapping[int, int]]
"""Where each heap begins in the file -> number of an object in it -> its bytes."""
_V1, _MESSAGE = Struct("<BxHII4x"), Struct("<HHB3x")
"""Of an object header of version 1, and of a message in it."""
_PLACE = Struct("<QQ")
_TEXT = Struct("<IQI")
"""Of a text of any length: how many bytes (or references), which heap, which object."""
_ATTRIBUTE, _CONTINUED = 0x0C, 0x10
_VARIABLE = 9
_MOST_BLOCKS = 1000
_ENDS = 4
"""Bytes of the checksum that ends a block of version 2."""


def check_attributes(found: Any, content: mmap, heaps: Heaps, base: int, path: Path) -> None:
    """Look at every attribute of a group or dataset, before one is read.

    Args:
        found: of h5py.
        content: the bytes of its file.
        heaps: all that are in it.
        base: where addresses count from: the size of the user block.
        path: of the file, for messages.

    Raises:
        FrameError: one lies outside of the heaps, or is of a type that the library cannot bear.
    """
    import h5py

    names = list(found.attrs)
    for name in names:
        kind = found.attrs.get_id(name).get_type()
        if _is_unbearable(kind):
            raise _damaged(path, f"the attribute {name} of {found.name} is of an odd type")
    if not names:
        return
    header = base + int(h5py.h5o.get_info(found.id).addr)
    for kind, data in _attributes(content, header, base):
        if kind & 0x0F != _VARIABLE:
            continue
        for length, address, number in _TEXT.iter_unpack(data[: len(data) // 16 * 16]):
            if length > heaps.get(base + address, {}).get(number, 0):
                raise _damaged(path, f"an attribute of {found.name} points beside the heaps")


def _is_unbearable(kind: h5py.h5t.TypeID) -> bool:
    """Whether a type has parts of any length that are neither text nor references."""
    import h5py

    if kind.get_class() == h5py.h5t.VLEN:
        return bool(kind.get_super().get_class() != h5py.h5t.REFERENCE)
    inside = kind.get_class() in (h5py.h5t.COMPOUND, h5py.h5t.ARRAY)
    return inside and bool(kind.detect_class(h5py.h5t.VLEN))


def _damaged(path: Path, what: str) -> FrameError:
    return FrameError(
        f"{path}: {what}",
        expected="attributes as HDF5 writes them",
        fix="get the file again: it is damaged",
    )


def _attributes(content: mmap, header: int, base: int) -> Iterator[tuple[int, bytes]]:
    """First byte of the type and bytes of the value, of each attribute in an object header."""
    for kind, body in _messages(content, header, base):
        if kind != _ATTRIBUTE or len(body) < 9:
            continue
        version, flags = body[0], body[1]
        name, of_type, of_space = (int.from_bytes(body[n : n + 2], "little") for n in (2, 4, 6))
        at = 9 if version == 3 else 8
        if version == 1:
            name, of_type, of_space = (-(-size // 8) * 8 for size in (name, of_type, of_space))
        if flags & 1 and version > 1:  # the type lies elsewhere in the file: h5py has looked at it
            continue
        first = at + name
        if first < len(body):
            yield body[first], body[first + of_type + of_space :]


def _messages(content: mmap, header: int, base: int) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message, also of those in further blocks."""
    second = content[header : header + 4] == b"OHDR"
    blocks, done = [_first_v2(content, header) if second else _first_v1(content, header)], 0
    ordered = second and bool(content[header + 5] & 0x04)
    while blocks and done < _MOST_BLOCKS:
        at, end = blocks.pop()
        done += 1
        while at + 4 <= min(end, len(content)):
            kind, size, step = _head(content, at, second=second, ordered=ordered)
            body = content[at + step : at + step + size]
            at += step + size
            if kind == _CONTINUED and len(body) >= _PLACE.size:
                place, length = _PLACE.unpack_from(body)
                marks = (4, _ENDS) if second else (0, 0)  # "OCHK" and a checksum
                blocks.append((base + place + marks[0], base + place + length - marks[1]))
            yield kind, body


def _head(content: mmap, at: int, *, second: bool, ordered: bool) -> tuple[int, int, int]:
    """Kind of a message, bytes of its body, and bytes before that."""
    if second:
        size = int.from_bytes(content[at + 1 : at + 3], "little")
        return content[at], size, 6 if ordered else 4
    if at + _MESSAGE.size > len(content):
        return 0, len(content), 0
    kind, size, _ = _MESSAGE.unpack_from(content, at)
    return kind, size, _MESSAGE.size


def _first_v1(content: mmap, header: int) -> tuple[int, int]:
    if header + _V1.size > len(content):
        return 0, 0
    size = _V1.unpack_from(content, header)[3]
    return header + _V1.size, header + _V1.size + size


def _first_v2(content: mmap, header: int) -> tuple[int, int]:
    flags = content[header + 5]
    at = header + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 0x03)
    size = int.from_bytes(content[at : at + width], "little")
    return at + width, at + width + size
