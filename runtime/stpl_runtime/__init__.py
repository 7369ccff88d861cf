"""Runs bundles: engine sessions, the nowcaster, sources and sinks. Imports neither torch nor onnx."""
