"""Exports runs: ONNX graphs, bundles, engines, and the closed-loop check against PyTorch."""
