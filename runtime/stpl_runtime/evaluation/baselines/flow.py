"""The last frame, moved along its optical flow."""

from __future__ import annotations

import importlib.util

from stpl_core.baselines import flow
from stpl_core.errors import MissingExtraError
from stpl_runtime.evaluation.baseline import Forecaster
from stpl_runtime.evaluation.subject import Judged, Material, on_whole_fields


def open_baseline(word: str, judged: Judged, material: Material) -> Forecaster:
    """See `stpl_runtime.evaluation.baseline.Baseline`."""
    if importlib.util.find_spec("cv2") is None:
        raise MissingExtraError("opencv-python-headless", "evaluate")
    horizon, units = judged.horizon, judged.codec.units
    return on_whole_fields(material, judged.context, lambda past: flow(past, horizon, units))
