"""How much one file or message may ask for: stated in pixels, checked before memory is taken.

A few kilobytes can claim a picture of gigabytes. Every reader holds what a header claims against
these numbers before it allocates; what exceeds them is a bad frame, and a line for the user.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from stpl_core.errors import FrameError

MOST_PIXELS = 2**27
"""Of one frame, all channels together, where no grid is known: 0.5 GB as float32."""
LEAST_LIMIT = 2**25
"""What any frame may have beside a small model: the largest radar composites have 25 million."""
_TIMES_THE_GRID = 16
_FRAMES_A_FILE = 8
"""Frames of that size which one file may bring to a stream at once."""
_PART = 2**20


class Readable(Protocol):
    """A file, or what unpacks one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


_limits = {"pixels": MOST_PIXELS}


def most_pixels() -> int:
    """Pixels that one frame may have, all channels together."""
    return _limits["pixels"]


def most_bytes() -> int:
    """Bytes that one packed file may unpack to."""
    return 8 * most_pixels()


def most_values_of_file() -> int:
    """Values that one file may bring where all its frames are read at once."""
    return _FRAMES_A_FILE * most_pixels()


def set_most_pixels(count: int | None) -> None:
    """Choose what one frame may have, for this process; None: `MOST_PIXELS`."""
    _limits["pixels"] = MOST_PIXELS if count is None else count


def pixels_for(channels: int, height: int, width: int) -> int:
    """What a frame may have that is meant for a grid of this size, unless the user chooses."""
    return max(LEAST_LIMIT, _TIMES_THE_GRID * channels * height * width)


def check_pixels(where: object, *sides: int) -> None:
    """Refuse a frame of these sides, all multiplied, where they are more than one may have.

    Raises:
        FrameError: they are.
    """
    count = 1
    for side in sides:
        count *= int(side)
    if count > most_pixels():
        raise FrameError(
            f"{where} claims {'x'.join(str(int(side)) for side in sides)} = {count:,} values",
            expected=f"at most {most_pixels():,} in one frame",
            fix=f"--max-pixels {count}, if you know who made it",
        )


def check_bytes(where: object, count: int, most: int | None = None) -> None:
    """Refuse to unpack or read more bytes than `most`, by default `most_bytes()`.

    Raises:
        FrameError: it would be more.
    """
    most = most_bytes() if most is None else most
    if count > most:
        raise FrameError(
            f"{where} holds more than {most:,} bytes when it is unpacked",
            expected="a frame",
            fix=f"--max-pixels {2 * most_pixels()}, if you know who made it",
        )


def open_unpacked(path: Path) -> BinaryIO:
    """A file, or what a gzipped one (by its name) holds; read it with `read_within`."""
    packed = path.name.lower().endswith(".gz")
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def read_within(file: Readable, where: object, most: int | None = None) -> bytes:
    """All of a file, or of what unpacks as it is read, within the budget.

    Raises:
        FrameError: it is more.
    """
    content = bytearray()
    while part := file.read(_PART):
        content += part
        check_bytes(where, len(content), most)
    return bytes(content)


def copy_within(file: Readable, out: IO[bytes], where: object, most: int | None = None) -> None:
    """Copy what unpacks as it is read, within the budget.

    Raises:
        FrameError: it is more.
    """
    count = 0
    while part := file.read(_PART):
        count += len(part)
        check_bytes(where, count, most)
        out.write(part)


def gunzipped(content: bytes, where: object, most: int | None = None) -> bytes:
    """What a gzip in memory holds, within the budget.

    Raises:
        FrameError: it is more.
        OSError, EOFError, zlib.error: it is damaged.
    """
    with gzip.open(io.BytesIO(content)) as file:
        return read_within(file, where, most)
