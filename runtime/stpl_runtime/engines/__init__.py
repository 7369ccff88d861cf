"""Engine sessions, one module per backend."""
