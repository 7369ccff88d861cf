"""Opening a .npz so that its file is closed even where it is no archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """Give the `NpzFile`; never unpickles.

    Raises:
        ValueError: it is a .npy under a wrong name; other errors are those of `numpy.load`.
    """
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it holds one array, not an archive")
        with archive:
            yield archive
