"""What the readers of HDF5 share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.readers.hdf5_checks import open_hdf5

SUFFIXES: tuple[str, ...] = (".h5", ".hdf5", ".hdf", ".he5", ".hd5", "-hd5")


def plain(value: Any) -> Any:
    """An attribute as str, float, int or list: bytes decoded, arrays of one taken apart."""
    if isinstance(value, np.ndarray):
        return plain(value.ravel()[0]) if value.size == 1 else [plain(v) for v in value.ravel()]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0 ")
    return value.item() if isinstance(value, np.generic) and not isinstance(value, str) else value


def has(path: Path, *names: str) -> bool:
    """Whether an HDF5 file has all these groups or datasets."""
    with open_hdf5(path) as file:
        return all(name in file for name in names)
