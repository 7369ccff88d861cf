"""Fits frames to a model's grid: a crop, then an area mean; the grid goes along.

Pictures may be resized between their four nearest pixels instead, as the papers' code does.

Reflectivity is averaged as rain rate, never in decibels. A pixel of the new
grid is no data where less than half of its area was observed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.frames import FrameShape, wrong_size
from stpl_core.grid import Grid
from stpl_core.rain import MARSHALL_PALMER, dbz_from_rate, rate_from_dbz
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Quantity, States

Floats = NDArray[np.float64]
Crop = tuple[int, int, int, int]
"""Top, left, height and width in pixels of the source; row 0 is the top."""

Resize = Literal["none", "area", "crop"]
"""For frames of another size where training says nothing: refuse them; average all of each;
average what a centred crop of the model's proportions leaves."""

_HALF = 0.5 - 1e-9


@dataclass(frozen=True)
class Fit:
    """How frames of one size become frames of another."""

    crop: Crop | None = None
    """What is cut out first; None: everything."""
    size: tuple[int, int] | None = None
    """(H, W) of the result, at most the crop's unless `bilinear`; None: as cut."""
    bilinear: bool = False
    """Between the four nearest pixels, in place of area means."""
    zr: tuple[float, float] = MARSHALL_PALMER
    """a and b of Z = a R^b, by which reflectivity is averaged."""

    def grid(self, grid: Grid, where: str) -> Grid:
        """The grid of the result.

        Raises:
            FrameError: the crop reaches beyond `grid`, or the result is larger than it.
        """
        top, left, height, width = self.crop or (0, 0, grid.height, grid.width)
        if not (0 <= top < top + height <= grid.height and 0 <= left < left + width <= grid.width):
            raise FrameError(
                f"{where} has {grid.height}x{grid.width} pixels",
                expected=f"room for the crop of {height}x{width} at row {top}, column {left}",
                fix="set data.crop = [top, left, height, width] to a part of them",
            )
        rows, columns = self.size or (height, width)
        if (rows > height or columns > width) and not self.bilinear:
            raise FrameError(
                f"{where} has {height}x{width} pixels",
                expected=f"at least the model's {rows}x{columns}",
                fix="a model for smaller frames: frames are never enlarged",
            )
        x, y, step_x, step_y = grid.affine
        affine = (
            x + left * step_x,
            y + top * step_y,
            step_x * width / columns,
            step_y * height / rows,
        )
        return replace(grid, affine=affine, height=rows, width=columns)

    def apply(self, frames: Array, state: States, quantity: Quantity) -> tuple[Array, States]:
        """Crop and average.

        Args:
            frames: `(n, C, H, W)` physical; NaN where there is no data.
            state: `(n, H, W)`.
            quantity: of the frames.

        Returns:
            Frames and states of the new size.
        """
        if self.crop is not None:
            top, left, height, width = self.crop
            frames = frames[..., top : top + height, left : left + width]
            state = state[..., top : top + height, left : left + width]
        if self.size is None or self.size == frames.shape[2:]:
            return frames, state
        weights = _between if self.bilinear else _shares
        down = weights(frames.shape[2], self.size[0])  # (h, H)
        across = weights(frames.shape[3], self.size[1]).T  # (W, w)
        new = np.empty((*frames.shape[:2], *self.size), np.float32)
        states = np.empty((len(frames), *self.size), np.uint8)
        for n in range(len(frames)):
            new[n], states[n] = self._mean(frames[n], state[n], quantity, down, across)
        return new, states

    def _mean(
        self, frame: Array, state: States, quantity: Quantity, down: Floats, across: Floats
    ) -> tuple[Floats, States]:
        observed = state != NO_DATA
        seen = down @ observed.astype(np.float64) @ across  # (h, w)
        echo = down @ (state == VALUE).astype(np.float64) @ across
        values = np.where(observed, frame, 0.0).astype(np.float64)  # (C, H, W)
        decibels = quantity.units == "dBZ"
        if decibels:
            values = np.where(state == VALUE, rate_from_dbz(values, self.zr), 0.0)
        mean = down @ values @ across / np.maximum(seen, 1e-12)  # (C, h, w)
        if decibels:
            mean = dbz_from_rate(mean, self.zr)
        new = np.full(seen.shape, VALUE, np.uint8)
        if quantity.no_echo is not None:
            empty = (echo == 0) | ((mean <= quantity.no_echo).all(axis=0) if decibels else False)
            new[empty] = NO_ECHO
            mean[:, empty] = quantity.no_echo
        new[seen < _HALF] = NO_DATA
        mean[:, new == NO_DATA] = np.nan
        return mean, new


def fit_for(
    found: FrameShape,
    wanted: FrameShape,
    fit: Fit | None,
    resize: Resize,
    where: str,
    other_fix: str = "",
) -> Fit:
    """How frames of one size come to the model's.

    Args:
        found: (C, H, W) of the frames.
        wanted: of the model.
        fit: as in training, for frames of another size; goes before `resize`.
        resize: what is done where training says nothing.
        where: what to call them.
        other_fix: what else the user may try.

    Raises:
        FrameError: they cannot, or should not.
    """
    if found == wanted:
        return Fit()
    if found[0] != wanted[0] or (fit is None and resize == "none"):
        raise wrong_size(found, wanted, where, other_fix)
    if fit is not None:
        return fit
    crop = None if resize == "area" else _centred(found[1:], wanted[1:])
    return replace(Fit(), crop=crop, size=wanted[1:])


def resized_note(found: FrameShape, fit: Fit) -> str:
    """In words, what `fit` did to frames of the size `found`."""
    text = f"area mean of {found[2]} x {found[1]} pixels"
    if fit.crop is None:
        return text
    _, _, height, width = fit.crop
    return f"area mean of the {width} x {height} in the middle of {found[2]} x {found[1]} pixels"


def _centred(found: tuple[int, int], wanted: tuple[int, int]) -> Crop:
    """The largest part of `found` in the middle with the proportions of `wanted`."""
    scale = min(found[0] / wanted[0], found[1] / wanted[1])
    height, width = (min(f, round(w * scale)) for f, w in zip(found, wanted, strict=True))
    return (found[0] - height) // 2, (found[1] - width) // 2, height, width


def _shares(source: int, target: int) -> Floats:
    """`(target, source)`: which part of each new pixel every old one is; rows add up to 1."""
    edges = np.arange(target + 1) * (source / target)
    low, high = edges[:-1, None], edges[1:, None]
    old = np.arange(source)
    overlap = np.minimum(high, old + 1) - np.maximum(low, old)
    return np.asarray(np.clip(overlap, 0, None) * (target / source), np.float64)


def _between(source: int, target: int) -> Floats:
    """`(target, source)`: how near each new centre is to the two old ones around it."""
    centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    distance = np.abs(centre[:, None] - np.arange(source))
    return np.asarray(np.clip(1 - distance, 0, None), np.float64)
