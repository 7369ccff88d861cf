"""pysteps' S-PROG: moved along, and smoothed at each scale as that scale becomes unpredictable."""

from __future__ import annotations

from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.pysteps_rain import DRY_DB, Rain, by_pysteps, rates_of_decibels
from stpl_runtime.evaluation.subject import Judged, Material


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    return by_pysteps(word, judged, material, _nowcast, frames=3)


def _nowcast(rain: Rain) -> Doubles:
    from pysteps.nowcasts.sprog import forecast

    made = forecast(rain.decibels[-3:], rain.motion, rain.horizon, precip_thr=DRY_DB)
    return rates_of_decibels(made)
