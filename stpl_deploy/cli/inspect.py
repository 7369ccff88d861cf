"""`stpl-deploy inspect`."""

from __future__ import annotations


def inspect() -> None:
    """Inspect."""
