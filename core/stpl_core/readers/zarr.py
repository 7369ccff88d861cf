"""Zarr stores with CF or mlcast's conventions, and what `data convert` wrote; see `cf`."""

from __future__ import annotations

from pathlib import Path

from stpl_core.readers.cf import read

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

SUFFIXES: tuple[str, ...] = ()
ABOUT = "Zarr stores with CF conventions (mlcast's too)"
_MARKS = ("zarr.json", ".zgroup", ".zmetadata")


def recognises(path: Path) -> bool:
    """Whether the folder is a store."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)
