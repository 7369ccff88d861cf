"""What the readers of HDF5 share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError
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


_EVENTS = ("vil", "vis", "ir069", "ir107")
"""SEVIR's arrays: (event, y, x, time)."""


def unknown_layout(path: Path, words: list[str]) -> FrameError:
    """The error of HDF5 that follows no convention: what it holds, and a line that saves it.

    Args:
        path: a file.
        words: the readers that do not know it.
    """
    with open_hdf5(path) as file:
        found: list[tuple[str, tuple[int, ...]]] = []
        file.visititems(
            lambda name, one: found.append((name, one.shape)) if hasattr(one, "shape") else None
        )
    arrays = [f"{name} {shape}".replace(" ()", "") for name, shape in found]
    fields = [(name, shape) for name, shape in found if 2 <= len(shape) <= 5]
    held = f"{', '.join(arrays[:5])}{', ...' if len(arrays) > 5 else ''}" or "no array"
    known = " or ".join(words)
    if not fields:
        return FrameError(
            f"{path} is not what {known} read: it holds {held}",
            expected="arrays of two dimensions or more",
            fix="another file",
        )
    name, shape = fields[0]
    order = ""
    if len(shape) == 4 and name in _EVENTS:
        order = ".transpose(0, 3, 1, 2)[:, :, None]"
    elif len(shape) == 4 and shape[-1] < min(shape[1:3]):
        order = ".transpose(0, 3, 1, 2)"  # channels last, as in traffic4cast
    code = (
        f"import h5py, numpy; numpy.save({path.stem + '.npy'!r}, "
        f"h5py.File({str(path)!r})[{name!r}][:]{order})"
    )
    return FrameError(
        f"{path} is not what {known} read: it holds {held}, and nothing on axes and units",
        expected="a layout that one of them recognises, or an array (T, H, W) or (T, C, H, W)",
        fix=f"python -c {_quoted(code)}",
    )


def _quoted(code: str) -> str:
    """In double quotes, as is read most easily, or as the shell needs it."""
    return shlex.quote(code) if any(mark in code for mark in '"$`\\!') else f'"{code}"'
