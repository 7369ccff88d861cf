"""Builders: one module per family of engine files. `plans.py` says what is built, for which GPU."""
