"""Runs bundles: sessions, the nowcaster, sources and sinks. Imports neither torch nor onnx."""
