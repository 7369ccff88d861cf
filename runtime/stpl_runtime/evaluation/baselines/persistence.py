"""The last frame, repeated."""

from __future__ import annotations

from stpl_core.baselines import persistence
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.subject import Judged, Material


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    past, horizon = judged.context, judged.horizon
    return lambda rows: persistence(material.frames[rows, :past], horizon)
