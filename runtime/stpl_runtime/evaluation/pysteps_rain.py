"""What all nowcasts of pysteps share: rain rates in, decibels, motion, and rain rates back."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import EnvironmentFault, UsageError
from stpl_core.grid import Grid
from stpl_core.rain import dbz_from_rate, rate_from_dbz
from stpl_core.same_grid import pixel_m
from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.subject import Judged, Material, on_whole_fields

DRY_RATE = 0.1
"""mm/h; less is no rain, as in the examples of pysteps."""
DRY_DB = -10.0
"""The same in decibels of mm/h."""
_NONE_DB = -15.0
"""What stands for no rain in decibels."""
_MOTION_FRAMES = 3


@dataclass(frozen=True)
class Rain:
    """The frames of one sequence, as pysteps takes them."""

    rates: Doubles
    """`(T, H, W)` mm/h, all finite; 0 where there is no rain, and where nothing was observed."""
    decibels: Doubles
    """`(T, H, W)` of the rates."""
    motion: Doubles
    """`(2, H, W)`, pixels a frame, x then y."""
    horizon: int
    pixel_km: float | None
    """Side of a pixel; None where it is not known."""
    minutes: float | None
    """From one frame to the next."""


def by_pysteps(
    word: str,
    judged: Judged,
    material: Material,
    nowcast: Callable[[Rain], Doubles],
    *,
    frames: int,
) -> Forecaster:
    """A baseline that a nowcast method of pysteps makes, sequence by sequence.

    Rain comes in over the edge as in `flow`: not at all, so that all are scored on the same pixels.

    Args:
        word: of the baseline, for messages.
        judged: says how many frames are read and predicted, and their units.
        material: the sequences.
        nowcast: the method, `(K, H, W)` mm/h; NaN is no rain.
        frames: that it reads.

    Raises:
        EnvironmentFault: pysteps is not installed, or it failed.
        UsageError: too few frames, more than one channel, or no rain.
    """
    if importlib.util.find_spec("pysteps") is None:
        raise EnvironmentFault(
            f"the baseline {word} needs pysteps, which is not installed",
            expected="pysteps 1.17 or later; it has no wheel and takes a C compiler",
            fix="pip install pysteps, or leave it out of --baseline",
        )
    _check(word, judged, frames)
    grid = next((one for one in (*material.grids, *judged.grids) if one.crs_wkt), None)

    def forecast(past: Array) -> Array:
        made = [_one(word, judged, sequence[:, 0], nowcast, grid) for sequence in past]
        return np.stack(made)[:, :, None]  # (n, K, 1, H, W)

    return on_whole_fields(material, judged.context, forecast)


def rates_of_decibels(decibels: Doubles) -> Doubles:
    """Back to mm/h; no rain where it is less than `DRY_DB`."""
    from pysteps.utils.transformation import dB_transform

    return np.asarray(dB_transform(decibels, threshold=DRY_DB, inverse=True)[0], np.float64)


def _check(word: str, judged: Judged, frames: int) -> None:
    units, channels = judged.codec.units, judged.frame[0]
    if units not in ("mm h-1", "dBZ") or channels != 1:
        raise UsageError(
            f"{word} for {channels} channels of {judged.codec.quantity} in {units}",
            expected="one channel of rain, in mm h-1 or dBZ",
            fix="leave it out of --baseline",
        )
    if judged.context < frames:
        raise UsageError(
            f"{word} reads {frames} frames, and the model reads {judged.context}",
            expected="a model that reads as many, since all baselines see what it sees",
            fix="leave it out of --baseline",
        )


def _one(
    word: str,
    judged: Judged,
    values: Array,
    nowcast: Callable[[Rain], Doubles],
    grid: Grid | None,
) -> Array:
    """`(T, H, W)` -> `(K, H, W)`, both in the model's units."""
    reflectivity = judged.codec.units == "dBZ"
    least = float(np.nanmin(values)) if np.isfinite(values).any() else 0.0
    rates = np.nan_to_num(values.astype(np.float64), nan=least)
    rates = rate_from_dbz(rates) if reflectivity else rates
    rates = np.where(rates < DRY_RATE, 0.0, rates)
    made = np.zeros((judged.horizon, *rates.shape[1:]))
    if rates[-1].any():  # no motion, no cells and no scales in a dry field
        made = _quietly(word, rates, judged, nowcast, grid)
    made = np.nan_to_num(np.maximum(made, 0.0), nan=0.0)
    return (np.maximum(dbz_from_rate(made), least) if reflectivity else made).astype(np.float32)


def _quietly(
    word: str,
    rates: Doubles,
    judged: Judged,
    nowcast: Callable[[Rain], Doubles],
    grid: Grid | None,
) -> Doubles:
    """Call pysteps, which prints and warns on its way."""
    cadence_s = judged.cadence_s
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from pysteps.motion.lucaskanade import dense_lucaskanade
            from pysteps.utils.transformation import dB_transform

            decibels = dB_transform(rates, threshold=DRY_RATE, zerovalue=_NONE_DB)[0]
            rain = Rain(
                rates=rates,
                decibels=decibels,
                motion=dense_lucaskanade(decibels[-_MOTION_FRAMES:]),
                horizon=judged.horizon,
                pixel_km=None if grid is None else float(np.mean(pixel_m(grid))) / 1000,
                minutes=None if cadence_s is None else cadence_s / 60,
            )
            return nowcast(rain)
        except Exception as error:  # whatever it raises on a field that it cannot do
            raise EnvironmentFault(
                f"{word} failed: {type(error).__name__}: {error}",
                expected="a pysteps that runs here, and fields that it can do",
                fix="leave it out of --baseline",
            ) from error
