"""pysteps' extrapolation: the last frame, moved along the motion of corners (Lucas-Kanade)."""

from __future__ import annotations

from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.pysteps_rain import Rain, by_pysteps, rates_of_decibels
from stpl_runtime.evaluation.subject import Judged, Material


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    return by_pysteps(word, judged, material, _nowcast, frames=2)


def _nowcast(rain: Rain) -> Doubles:
    from pysteps.nowcasts.extrapolation import forecast

    return rates_of_decibels(forecast(rain.decibels[-1], rain.motion, rain.horizon))
