"""Builders: one module per family of plans; `plans.py` decides what is built for which GPU."""
