"""The mean of pysteps' STEPS ensemble, in rain rates."""

from __future__ import annotations

import numpy as np

from stpl_core.errors import UsageError
from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.pysteps_rain import DRY_DB, Rain, by_pysteps, rates_of_decibels
from stpl_runtime.evaluation.subject import Judged, Material

MEMBERS = 20
_SEED = 24


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    known = (*material.grids[:1], *judged.grids[:1])
    if not any(grid.crs_wkt for grid in known) or judged.cadence_s is None:
        raise UsageError(
            f"{word}: nothing says how large a pixel of {material.about} is, or how long a step",
            expected="frames with a grid and times, which STEPS perturbs the motion by",
            fix="an archive as --data, or pysteps-sprog in place of it",
        )
    return by_pysteps(word, judged, material, _nowcast, frames=3)


def _nowcast(rain: Rain) -> Doubles:
    from pysteps.nowcasts.steps import forecast

    members = forecast(
        rain.decibels[-3:],
        rain.motion,
        rain.horizon,
        n_ens_members=MEMBERS,
        precip_thr=DRY_DB,
        kmperpixel=rain.pixel_km,
        timestep=rain.minutes,
        seed=_SEED,
    )  # (members, K, H, W)
    return np.asarray(np.mean([rates_of_decibels(one) for one in members], axis=0))
