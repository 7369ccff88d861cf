"""TaxiBJ: taxi inflow and outflow on 32x32 cells of Beijing, in both published forms.

`BJ13..BJ16_M32x32_T30_InOut.h5` (MIM, CMS-LSTM): `data` (N, 2, 32, 32) and `date` YYYYMMDDSS with
half-hours SS 1 to 48, Beijing time. Days without all 48 are dropped, negatives become 0, and the
last 1,344 windows of 8 contiguous half-hours are the test set. `dataset.npz` (OpenSTL): X (4
frames) and Y (4) of train and test, scaled to [-1, 1], another split. bibliography.md section 3.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, Quantity, ReadOptions, Times, state_of
from stpl_core.readers.hdf5 import SUFFIXES as HDF5
from stpl_core.readers.hdf5 import has
from stpl_core.readers.hdf5_checks import open_hdf5, whole
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.npz import open_npz

SUFFIXES = (*HDF5, ".npz")
ABOUT = "TaxiBJ, the BJ*.h5 files or OpenSTL's dataset.npz"
TEST_WINDOWS, WINDOW = 48 * 7 * 4, 8
_FILE = re.compile(r"BJ\d\d_M32x32_T30_InOut\.h5", re.IGNORECASE)
_SLOTS, _SLOT = 48, np.timedelta64(30, "m")
_BEIJING = np.timedelta64(8, "h")
_CHANNELS = ("inflow", "outflow")
_NPZ = ("X_train", "Y_train", "X_test", "Y_test")
_BLOCK = 256


def recognises(path: Path) -> bool:
    """Whether it is a folder with files of these names, or a file with these arrays."""
    if path.is_dir():
        return any(_FILE.fullmatch(file.name) for file in path.iterdir())
    if path.name.lower().endswith(".npz"):
        with open_npz(path) as archive:
            return set(_NPZ) <= set(archive.files)
    if not has(path, "data", "date"):
        return False
    with open_hdf5(path) as file:
        data, date = file["data"], file["date"]
        fits = data.ndim == 4 and data.shape[1] == len(_CHANNELS) and len(data) == len(date)
        return bool(fits and date.dtype.kind in "SO")


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames, cut where the test set begins."""
    if path.name.lower().endswith(".npz"):
        yield from _read_npz(path)
        return
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _FILE.fullmatch(file.name))
    parts = []
    for file in files:
        refuse_empty(file)
        with decoding(file, "taxibj"):
            parts.append((file, *_read_h5(file)))
    begin = test_begin(np.concatenate([time for _, time, _ in parts]))
    for file, time, frames in parts:
        for split, chosen in ((0, time < begin), (2, time >= begin)):
            if chosen.any():
                yield _piece(frames[chosen], time[chosen], split, file)


def test_begin(time: Times) -> np.datetime64:
    """When the first of the last 1,344 windows of 8 contiguous half-hours begins.

    A window is of the test set where its first frame is not before this; the published training
    windows just before it reach into it by up to 7 frames. Later than all times where there are
    not more windows than that.
    """
    steps = np.diff(time) == _SLOT
    whole = np.convolve(steps, np.ones(WINDOW - 1, int), "valid") == WINDOW - 1
    starts = np.flatnonzero(whole)
    if len(starts) <= TEST_WINDOWS:
        return np.datetime64(time[-1] + _SLOT)
    return np.datetime64(time[starts[-TEST_WINDOWS]])


def _read_h5(path: Path) -> tuple[Times, Array]:
    """Times, UTC, and frames `(T, 2, 32, 32)` of whole days."""
    with open_hdf5(path) as file:
        frames = whole(file["data"], path).astype(np.float32)
        dates = [bytes(date).decode("ascii") for date in whole(file["date"], path)]
    if frames.ndim != 4 or len(dates) != len(frames):
        raise FrameError(
            f"{path} has data of the shape {frames.shape} and {len(dates)} dates",
            expected="(N, 2, 32, 32) and N dates",
            fix="check the file",
        )
    days = np.array([date[:8] for date in dates])
    slots = np.array([int(date[8:]) for date in dates])
    keep = np.zeros(len(days), bool)
    for day in np.unique(days):
        of_day = days == day
        keep |= of_day & (sorted(slots[of_day].tolist()) == list(range(1, _SLOTS + 1)))
    if not keep.any():
        raise FrameError(
            f"{path} has no day with all {_SLOTS} half-hours", expected="one", fix="check the file"
        )
    midnight = np.array([f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in days[keep]], "datetime64[ns]")
    since = ((slots[keep] - 1) * _SLOT - _BEIJING).astype("timedelta64[ns]")
    time: Times = np.asarray(midnight + since, "datetime64[ns]")
    order = np.argsort(time, kind="stable")
    return time[order], np.maximum(frames[keep][order], 0)


def _piece(frames: Array, time: Times, split: int, path: Path) -> Piece:
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=Quantity("taxi flow per half-hour", "count", channels=_CHANNELS),
        source=str(path),
        time=time,
        cadence_s=1800.0,
        split=split,
        notes={
            "split_rule": f"MIM: the last {TEST_WINDOWS} windows of {WINDOW} contiguous half-hours"
        },
    )


def _read_npz(path: Path) -> Iterator[Piece]:
    with open_npz(path) as archive:
        for split, name in ((0, "train"), (2, "test")):
            pair = [archive[f"{part}_{name}"] for part in "XY"]
            both = np.concatenate(pair, axis=1)  # (N, 8, 2, 32, 32)
            for start in range(0, len(both), _BLOCK):
                yield _windows(both[start : start + _BLOCK], split, path)


def _windows(stored: NDArray[np.floating], split: int, path: Path) -> Piece:
    count, length = stored.shape[:2]
    frames = ((stored.reshape(-1, *stored.shape[2:]) + 1) / 2).astype(np.float32)
    return Piece(
        frames=frames,
        state=state_of(frames),
        grid=pixel_grid(*frames.shape[2:]),
        quantity=Quantity("taxi flow, scaled", "1", channels=_CHANNELS),
        source=str(path),
        cadence_s=1800.0,
        begins=np.tile(np.arange(length) == 0, count),
        split=split,
        notes={"split_rule": "OpenSTL: as in the file"},
    )
