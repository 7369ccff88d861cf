"""pysteps' LINDA, deterministic: growth and decay around the cells it finds; made of rain rates."""

from __future__ import annotations

import numpy as np

from stpl_core.scores.images import Doubles
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.pysteps_rain import Rain, by_pysteps
from stpl_runtime.evaluation.subject import Judged, Material

_CELLS = 15
"""Most that are followed: as in pysteps' example."""


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    return by_pysteps(word, judged, material, _nowcast, frames=3)


def _nowcast(rain: Rain) -> Doubles:
    from pysteps.nowcasts.linda import forecast

    made = forecast(
        rain.rates[-3:],
        rain.motion,
        rain.horizon,
        max_num_features=_CELLS,
        add_perturbations=False,
    )
    return np.asarray(made, np.float64)
