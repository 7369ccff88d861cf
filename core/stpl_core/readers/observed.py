"""What was read becomes what the model is given: its grid, its units, and three states of a pixel.

`predict` on an archive and every live source go through this, so that both give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.frames import FrameShape, wrong_size
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, Quantity, States
from stpl_core.readers.fit import Crop, Fit
from stpl_core.readers.in_units import converted_quantity, convertible, in_units
from stpl_core.readers.units import cf_units

Resize = Literal["none", "area", "crop"]
"""For frames of another size where training says nothing: refuse them; average all of each;
average what a centred crop of the model's proportions leaves."""


@dataclass(frozen=True)
class Observed:
    """Frames as the model wants them, before they are checked."""

    frames: Array
    """`(n, C, H, W)` physical units of the codec; NaN where nothing was observed."""
    state: States
    """`(n, H, W)`."""
    grid: Grid
    standard_name: str
    """CF; empty where there is none."""


def observed(
    frames: Array,
    state: States,
    quantity: Quantity,
    grid: Grid,
    codec: FrameCodec,
    fit: Fit,
    where: str,
) -> Observed:
    """Fit frames to the model's grid, then bring them into its unit.

    Args:
        frames: `(n, C, H, W)` in the units of `quantity`; NaN where there is no data.
        state: `(n, H, W)`.
        quantity: what the numbers mean.
        grid: of the frames.
        codec: the model's.
        fit: from their size to the model's.
        where: what to call them.

    Raises:
        FrameError: a unit that cannot be converted, or a crop beyond the frames.
    """
    units = cf_units(codec.units)
    if not convertible(quantity, units):
        raise FrameError(f"{where} is in {quantity.units}", expected=units, fix="convert it first")
    onto = fit.grid(grid, where)
    frames, state = fit.apply(frames, state, quantity)
    frames = in_units(frames, state, quantity, units, codec.zr)
    return Observed(frames, state, onto, converted_quantity(quantity, units).standard_name)


def given_values(
    frame: Array, state: States, codec: FrameCodec, where: str
) -> tuple[Array, NDArray[np.bool_] | None]:
    """One frame as the model is given it: checked, and a number in every pixel.

    Args:
        frame: `(C, H, W)` physical; NaN where nothing was observed.
        state: `(H, W)`.
        codec: the model's.
        where: what to call it.

    Returns:
        The frame, no rain where there was no echo and `no_data_value` where nothing was observed;
        and `(H, W)`, True where it was observed (None: everywhere).

    Raises:
        FrameError: nothing was observed anywhere, or values leave the codec's range.
    """
    seen = state != NO_DATA
    if not seen.any():
        raise FrameError(
            f"{where} has no data all over", expected="observed frames", fix="leave it out"
        )
    frame = np.where(state == NO_ECHO, np.float32(codec.no_rain_value), frame)
    codec.check(frame, where, seen)
    frame = np.where(np.isnan(frame), np.float32(codec.no_data_value), frame)
    return frame, None if seen.all() else seen


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
