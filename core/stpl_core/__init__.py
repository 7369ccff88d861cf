"""What all packages agree on: bundle, frames, readers, scores, errors. No torch, no onnx."""

__version__ = "0.2.0"
