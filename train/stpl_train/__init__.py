"""Trains forecasters: models, data, recipes and the training loop (PyTorch)."""
