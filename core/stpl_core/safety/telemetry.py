"""Libraries that would report to their makers when they are imported do not."""

from __future__ import annotations

import os
import sys


def no_telemetry() -> None:
    """Keep the engines' libraries from asking anybody; before the first of them is imported."""
    # ONNX Runtime from 1.29 on sends what it loads and runs; "0" of the user's own lets it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # OpenVINO counts its imports and has no switch; without this module it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # blocks an import
