"""Plain NumPy files, and what `data convert` wrote as .npz.

(H, W) is one frame, (T, H, W) or (T, C, H, W) a sequence, (N, T, C, H, W) many. Unsigned integers
of no unit are a fraction of full scale, others are taken as they are, NaN is no data. A .npz may
hold `time` (datetime64, or seconds since 1970, UTC) and `units` beside `frames`. A time in the name
of a file with one frame is its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.frames import read_array
from stpl_core.grid import pixel_grid
from stpl_core.reader import Piece, Quantity, ReadOptions, Times, state_of
from stpl_core.readers.cf_clock import times_of_texts
from stpl_core.readers.checked import in_stated_units
from stpl_core.readers.converted import dataset_of_npz, pieces_of_dataset
from stpl_core.readers.names import file_time
from stpl_core.readers.npz import open_npz
from stpl_core.readers.units import cf_units
from stpl_core.reading.axes import in_layout, layout_of

SUFFIXES = (".npy", ".npz")
ABOUT = ".npy and .npz: (T, H, W), (T, C, H, W), (N, T, C, H, W)"
_BLOCK_VALUES = 2**23
_CLOCKS = ("dates", "timestamps", "times", "time")
"""Names of times beside the frames, the strongest last."""
_FACTORS = ("scale_factor", "add_offset", "gain", "offset", "scale")
_LAST_SECOND = 9e9
"""Seconds after 1970 that 64 bits of nanoseconds hold: to the year 2255."""


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames in blocks."""
    beside: dict[str, NDArray[Any]] = {}
    if path.name.lower().endswith(".npz"):
        with open_npz(path) as archive:
            if "dataset" in archive.files:
                yield from pieces_of_dataset(dataset_of_npz(path), _BLOCK_VALUES)
                return
            _refuse_packed(archive, path)
            named = {"time": _CLOCKS, "units": ("units",)}
            beside = {
                key: archive[name]
                for key, names in named.items()
                for name in names
                if name in archive.files and _is_plain(archive, name)
            }
            stored = _chosen(archive, options.variable, path)
    else:
        stored = read_array(path, lazy=True)
    many = _as_sequences(stored, path, options.layout)  # (N, T, C, H, W)
    count, length = many.shape[:2]
    lone = (count, length) == (1, 1)  # one frame continues the file before it
    times = _times(beside.get("time"), many.shape, path, options)
    units = cf_units(str(beside["units"])) if "units" in beside else "1"
    block = max(1, _BLOCK_VALUES // max(1, int(np.prod(many.shape[2:]))))
    for n in range(count):
        for start in range(0, length, block):
            rows = slice(start, min(start + block, length))
            frames = _values(many[n, rows], as_fraction=(options.units or units) == "1")
            piece = Piece(
                frames=frames,
                state=state_of(frames),
                grid=pixel_grid(*frames.shape[2:]),
                quantity=_quantity(units, frames.shape[1]),
                source=str(path),
                time=None if times is None else times[rows],
                begins=np.arange(len(frames)) == (0 if start == 0 and not lone else -1),
            )
            yield in_stated_units(piece, units, "") if options.units is None else piece


def _is_plain(archive: Any, name: str) -> bool:
    """Whether an array is none of Python objects, which would have to be unpickled."""
    try:
        return bool(archive[name].size)
    except ValueError:
        return False


def _refuse_packed(archive: Any, path: Path) -> None:
    """Raise where numbers stand beside the frames that would turn them into values."""
    found = [name for name in _FACTORS if name in archive.files]
    if found:
        raise FrameError(
            f"{path} holds {' and '.join(found)} beside its frames",
            expected="values, not numbers that are to be multiplied",
            fix="numpy.savez(path, frames=values) with them multiplied",
        )


def _chosen(archive: Any, wanted: str | None, path: Path) -> NDArray[Any]:
    fields = [name for name in archive.files if _is_field(archive, name)]
    name = wanted or ("frames" if "frames" in fields else fields[0] if len(fields) == 1 else "")
    if name not in fields:
        raise FrameError(
            f"{path} holds the arrays {', '.join(archive.files) or 'none'}",
            expected=wanted or "one array of frames, or one of the name frames",
            fix=f"--variable {fields[0]}" if fields else "numpy.savez(path, frames=array)",
        )
    return np.asarray(archive[name])


def _is_field(archive: Any, name: str) -> bool:
    """Whether an array may hold frames; one of Python objects, as dates often are, is none."""
    try:
        array = archive[name]
    except ValueError:  # it would have to be unpickled
        return False
    return array.dtype.kind in "uifb" and array.ndim >= 2


def _as_sequences(stored: NDArray[Any], path: Path, layout: str | None) -> NDArray[Any]:
    """View as `(N, T, C, H, W)`."""
    if stored.dtype.kind not in "uif" or stored.size == 0 or not 2 <= stored.ndim <= 5:
        raise FrameError(
            f"{path} has the shape {stored.shape} and dtype {stored.dtype}",
            expected="numbers of the shape (H, W), (T, H, W), (T, C, H, W) or (N, T, C, H, W)",
            fix="reshape it",
        )
    letters = layout or layout_of(stored.shape, stored.dtype, str(path))
    return in_layout(stored, letters, str(path))


def _values(stored: NDArray[Any], *, as_fraction: bool) -> NDArray[np.float32]:
    """Unsigned integers of no unit are a fraction of full scale; others are what they are."""
    frames = stored.astype(np.float32)
    if stored.dtype.kind == "u" and as_fraction:
        return frames / np.float32(np.iinfo(stored.dtype).max)
    return frames


def _times(
    stored: NDArray[Any] | None, shape: tuple[int, ...], path: Path, options: ReadOptions
) -> Times | None:
    if stored is None:
        stamp = file_time(path, options) if shape[:2] == (1, 1) else None
        return None if stamp is None else np.array([stamp])
    if stored.dtype.kind in "US":
        stored = times_of_texts(stored, str(path))
    if stored.shape != (shape[1],) or shape[0] != 1 or stored.dtype.kind not in "Miuf":
        raise FrameError(
            f"{path} has time of the shape {stored.shape} for frames {shape}",
            expected="one time for each frame of one sequence",
            fix="save them with the same length",
        )
    if stored.dtype.kind == "M":
        return stored.astype("datetime64[ns]")
    seconds = stored.astype(np.float64)
    if not (np.abs(seconds) < _LAST_SECOND).all():
        raise FrameError(
            f"{path} has the time {stored.ravel()[0]}",
            expected="datetime64, or seconds since 1970",
            fix="save it as datetime64 (milliseconds: divide by 1000)",
        )
    return np.round(seconds * 1e9).astype("int64").astype("datetime64[ns]")


def _quantity(units: str, channels: int) -> Quantity:
    names = ("",) if channels == 1 else tuple(f"channel{n + 1}" for n in range(channels))
    return Quantity("grey level" if units == "1" else "values", units, channels=names)
