"""What all packages agree on: bundle, frames, readers, scores, errors. No torch, no onnx."""

from stpl_core.safety.telemetry import no_telemetry as _no_telemetry

__version__ = "0.2.0"

_no_telemetry()
