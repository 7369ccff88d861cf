"""pysteps' ANVIL: moved along, with growth and decay; made of rain rates, not of decibels."""

from __future__ import annotations

import numpy as np

from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.pysteps_rain import Rain, by_pysteps
from stpl_runtime.evaluation.subject import Judged, Material

_WINDOW = 25
"""Radius in pixels within which growth is alike: as in pysteps' example."""


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    return by_pysteps(word, judged, material, _nowcast, frames=4)


def _nowcast(rain: Rain) -> Doubles:
    from pysteps.nowcasts.anvil import forecast

    made = forecast(rain.rates[-4:], rain.motion, rain.horizon, ar_window_radius=_WINDOW)
    return np.asarray(made, np.float64)
