"""Training data: sequences of frames."""
