"""Sources of frames, one module each."""
