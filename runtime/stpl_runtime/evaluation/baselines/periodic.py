"""What was observed a day or a week before."""

from __future__ import annotations

import numpy as np

from stpl_core.baselines import DAY, WEEK, periodic
from stpl_core.errors import UsageError
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.subject import Judged, Material

_PERIODS = {"day": DAY, "week": WEEK}


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    times = material.times
    if times is not None:
        found = periodic(material.frames, times, judged.horizon, _PERIODS[word])
        if np.isfinite(found).any():
            return lambda rows: found[rows]
    raise UsageError(
        f"no frame of a {word} before in {material.about}",
        expected=f"an .npz with `time`, and sequences that cover more than a {word}",
        fix=f"leave {word} out of --baseline",
    )
