"""The one way from frames as a reader gives them to what a model is given.

Training, `predict`, `evaluate` and every live source go through here, so that a model never sees
other values than it was trained on. In this order: the fit to the model's grid, the model's unit,
the codec's "no rain" where there is no echo, nothing where nothing was observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, Mask, Quantity, States
from stpl_core.readers.fit import Fit
from stpl_core.readers.in_units import converted_quantity, convertible, in_units, unit_fix
from stpl_core.readers.units import cf_units


@dataclass(frozen=True)
class ModelInput:
    """Frames on the model's grid and in its unit; `frame` checks and completes each."""

    frames: Array
    """`(n, C, H, W)` physical units of the codec; NaN where nothing was observed."""
    observed: Mask
    """`(n, H, W)`."""
    grid: Grid
    standard_name: str
    """CF; empty where there is none."""
    codec: FrameCodec

    def check(self, n: int, where: str) -> None:
        """Refuse frame `n` where its values are not for the codec.

        Raises:
            FrameError: observed values are not finite or leave the codec's range.
        """
        self.codec.check(self.frames[n], where, self.observed[n])

    def frame(self, n: int, where: str) -> tuple[Array, Mask | None]:
        """Frame `n` alone, checked, with a number in every pixel.

        Args:
            n: from 0.
            where: what to call it.

        Returns:
            `(C, H, W)` physical, `no_data_value` where nothing was observed; and `(H, W)`, True
            where it was observed (None: everywhere).

        Raises:
            FrameError: nothing was observed anywhere, or see `check`.
        """
        observed = self.observed[n]
        if not observed.any():
            raise FrameError(
                f"{where} has no data all over", expected="observed frames", fix="leave it out"
            )
        self.check(n, where)
        frame = self.frames[n]
        if len(self.frames) > 1:  # a copy, so that one frame does not hold all others in memory
            frame, observed = frame.copy(), observed.copy()
        if observed.all():
            return frame, None
        return np.where(observed, frame, np.float32(self.codec.no_data_value)), observed


def model_input(
    frames: Array,
    state: States,
    quantity: Quantity,
    grid: Grid,
    codec: FrameCodec,
    fit: Fit,
    where: str,
) -> ModelInput:
    """Bring frames onto the model's grid and into its unit.

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
        raise FrameError(
            f"{where} is in {quantity.units}", expected=units, fix=unit_fix(quantity, units)
        )
    onto = fit.grid(grid, where)
    frames, state = fit.apply(frames, state, quantity)
    frames = in_units(frames, state, quantity, units, codec.zr)
    for empty, value in ((state == NO_ECHO, codec.no_rain_value), (state == NO_DATA, np.nan)):
        if empty.any():
            frames = np.where(empty[:, None], np.float32(value), frames)
    name = converted_quantity(quantity, units).standard_name
    return ModelInput(frames, state != NO_DATA, onto, name, codec)
