"""Whether a file is all there, for formats whose libraries do not say.

netCDF-C fills what a classic file lacks, and FFmpeg conceals the end of a video; both formats state
lengths in their headers.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

_ABSENT, _DIMENSION, _VARIABLE, _ATTRIBUTE = 0, 10, 11, 12
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_STREAMING = 0xFFFFFFFF
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_BMFF = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


def refuse_cut_netcdf(path: Path) -> None:
    """Raise EOFError where a classic NetCDF (CDF 1, 2 and 5) is shorter than its header says."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return  # NetCDF-4: HDF5 checks itself
        needed = _ClassicHeader(file, magic[3]).bytes_needed()
    _compare(path, needed)


def refuse_cut_video(path: Path) -> None:
    """Raise EOFError where an MP4, MOV, AVI or Matroska is shorter than its outermost boxes say."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF":
            _compare(path, 8 + int.from_bytes(head[4:8], "little"))
        if head[:4] == _EBML:
            file.seek(0)
            _compare(path, _ebml_end(file))
        if head[4:8] not in _BMFF:
            return
        place = 0
        while place + 8 <= size:
            file.seek(place)
            length, _ = struct.unpack(">I4s", file.read(8))
            if length == 1:  # the true one follows, in 64 bits
                length = int.from_bytes(file.read(8), "big")
            if length == 0:  # to the end of the file
                return
            if length < 8:
                raise ValueError(f"a box of {length} bytes at {place}")
            place += length
    _compare(path, place)


def _ebml_end(file: BinaryIO) -> int:
    """Where Matroska's one segment ends; 0 where it was streamed and does not say."""
    end = 0
    for expected in (_EBML, _SEGMENT):
        file.seek(end)
        if file.read(4) != expected:
            return 0
        first = file.read(1)
        if not first or not first[0]:
            return 0
        extra = 8 - first[0].bit_length()
        length = int.from_bytes(first + file.read(extra), "big") & ((1 << 7 * (extra + 1)) - 1)
        if length == (1 << 7 * (extra + 1)) - 1:  # all ones: unknown
            return 0
        end = file.tell() + length
    return end


def _compare(path: Path, needed: int) -> None:
    size = path.stat().st_size
    if size < needed:
        raise EOFError(f"{size} bytes of {needed}")


class _ClassicHeader:
    """The parts of a classic header that say where the data ends (NetCDF user's guide, annex B)."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self._file = file
        self._wide = version == 5
        self._offset = ">i" if version == 1 else ">q"

    def bytes_needed(self) -> int:
        """Where the last byte of the last variable ends; its padding may be left out."""
        records = self._count()
        sides = self._dimensions()
        self._attributes()
        fixed, per_record = [0], [(0, 0)]
        for _ in range(self._list(_VARIABLE)):
            self._name()
            shape = [sides[self._count()] for _ in range(self._count())]
            self._attributes()
            kind = self._number(">i")
            self._count()  # vsize, padded and capped; computed below
            begin = self._number(self._offset)
            if shape and shape[0] == 0:
                per_record.append((begin, math.prod(shape[1:]) * _TYPE_BYTES[kind]))
            else:
                fixed.append(begin + math.prod(shape) * _TYPE_BYTES[kind])
        ends = [0]
        if records not in (0, _STREAMING) and len(per_record) > 1:
            lone = len(per_record) == 2  # records of a lone variable are not padded
            step = sum(n if lone else -(-n // 4) * 4 for _, n in per_record)
            ends = [begin + (records - 1) * step + n for begin, n in per_record if n]
        return max(*fixed, *ends)

    def _dimensions(self) -> list[int]:
        sides = []
        for _ in range(self._list(_DIMENSION)):
            self._name()
            sides.append(self._count())
        return sides

    def _attributes(self) -> None:
        for _ in range(self._list(_ATTRIBUTE)):
            self._name()
            kind = self._number(">i")
            self._skip(self._count() * _TYPE_BYTES[kind])

    def _list(self, tag: int) -> int:
        found, count = self._number(">i"), self._count()
        if found not in (_ABSENT, tag):
            raise ValueError(f"tag {found} in the header, expected {tag}")
        return count

    def _name(self) -> None:
        self._skip(self._count())

    def _skip(self, length: int) -> None:
        self._file.seek(-(-length // 4) * 4, 1)

    def _count(self) -> int:
        return self._number(">Q" if self._wide else ">I")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._file.read(struct.calcsize(form)))[0])
