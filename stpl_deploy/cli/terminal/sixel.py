"""Sixels: bands of six rows, each drawn once for every colour in it.

A letter is six pixels below one another, from `?` for none to `~` for all; `!9~` is nine of them.
`$` goes back to the start of the band, `-` on to the next.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

_COLOURS = 256
_BAND = 6
_SHORTEST_RUN = 4
"""Equal letters that are shorter with their count."""

Bytes = NDArray[np.uint8]


def escaped(png: bytes, columns: int | None, width: int) -> str:
    """What is written to the terminal; see `PictureProtocol`."""
    from PIL import Image

    image = Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGB")
    if columns:
        size = (width, max(1, round(image.height * width / image.width)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    # The farthest colours first: few pixels of a strong one are rain, not noise. No dither, which
    # would speckle areas of one colour.
    flat = image.quantize(
        _COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
    numbers = np.asarray(flat, np.uint8)  # (H, W)
    palette = np.array(flat.getpalette(), np.int64).reshape(-1, 3)
    used = np.unique(numbers)
    # 2: a colour as red, green and blue in hundredths.
    colours = [
        f"#{n};2;" + ";".join(str(part) for part in (palette[n] * 100 + 127) // 255) for n in used
    ]
    bands = [_band(numbers[top : top + _BAND]) for top in range(0, len(numbers), _BAND)]
    height, width = numbers.shape
    # 1 in the second place: what is not drawn stays as it is. "1;1: pixels are square.
    head = f'\x1bP0;1;0q"1;1;{width};{height}'
    return head + "".join(colours) + "-".join(bands) + "\x1b\\\n"


def _band(rows: Bytes) -> str:
    """Of `(6, W)` numbers of colours, or fewer rows at the lower end."""
    bit = (1 << np.arange(len(rows), dtype=np.uint8))[:, None]
    drawn = []
    for colour in np.unique(rows):
        letters = ((rows == colour) * bit).sum(axis=0, dtype=np.uint8) + np.uint8(63)  # (W,)
        drawn.append(f"#{colour}{_runs(letters)}")
    return "$".join(drawn)


def _runs(letters: Bytes) -> str:
    """Letters with the counts of equal ones; `?` at the end draws nothing."""
    ends = np.flatnonzero(np.diff(letters, append=np.uint8(0)))
    counts = np.diff(ends, prepend=-1)
    parts = [
        f"!{count}{chr(letter)}" if count >= _SHORTEST_RUN else chr(letter) * count
        for letter, count in zip(letters[ends].tolist(), counts.tolist(), strict=True)
    ]
    if letters[-1] == 63:
        parts.pop()
    return "".join(parts)
