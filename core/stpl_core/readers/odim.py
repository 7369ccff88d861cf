"""ODIM HDF5 composites (OPERA and the national services), by h5py.

`what` and `how` stand at the data, the dataset or the file and each level completes the one below;
strings are bytes or str, numbers may be arrays of one. nodata and undetect are two states. The
nominal time of the file counts, not the window of the scans; `odim_parts` has the exceptions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import (
    NO_DATA,
    NO_ECHO,
    VALUE,
    Piece,
    Quantity,
    ReadOptions,
    Times,
    agreed_step,
)
from stpl_core.readers.checked import states_itself
from stpl_core.readers.hdf5 import SUFFIXES, has
from stpl_core.readers.hdf5_checks import open_hdf5, whole
from stpl_core.readers.names import file_time
from stpl_core.readers.odim_parts import (
    Levels,
    Part,
    ask_which,
    attributes,
    chosen_parts,
    is_reflectivity,
    stamp,
    times_of,
)
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of, project
from stpl_core.readers.units import rain_amount, rain_rate, reflectivity

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "ODIM HDF5 composites: RATE, ACRR, DBZH, TH and their like"
_OTHERS = {
    "VIL": "kg m-2",
    "HGHT": "km",
    "VRADH": "m s-1",
    "VRADV": "m s-1",
    "ZDR": "dB",
    "RHOHV": "1",
    "QIND": "1",
    "PROB": "1",
    "KDP": "degree km-1",
}
"""Units of ODIM 2.4, table 16, for what a user may ask for."""


def recognises(path: Path) -> bool:
    """Whether it says that it follows ODIM, or has the groups of ODIM."""
    return path.is_file() and (has(path, "dataset1/what") or has(path, "dataset1/data1/what"))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the frames of a composite: one, or one for each time that it holds."""
    with open_hdf5(path) as file:
        _refuse_polar(file, path)
        chosen, every = chosen_parts(file, options, path)
        what = attributes(file, "what")
        moments = times_of(every, stamp(what, "", path) if not options.time_format else None, path)
        times = [moments[every.index(part)] for part in chosen]
        at_once = len(set(times)) < len(times)  # several at one time
        if at_once and not options.select:
            raise ask_which(chosen, path)
        frames, states, quantities = zip(*(_field(p, options, path) for p in chosen), strict=True)
        quantity = _one_quantity(quantities, chosen, path, at_once=at_once)
        grid, flips = _grid(chosen, frames[0].shape, path)
        notes = {"institution": str(what["source"])} if "source" in what else {}
    stacked, state = np.stack(frames), np.stack(states)  # (n, H, W)
    if at_once:
        state = np.where((state == NO_DATA).any(0), NO_DATA, state.min(0)).astype(np.uint8)[None]
        shown = np.where(state[:, None] == NO_DATA, np.float32(np.nan), stacked[None])
        times = times[:1]
    else:
        shown = stacked[:, None]
    order = np.argsort(_known(times, path, options), kind="stable")
    piece = Piece(
        frames=shown[order],  # (n, C, H, W)
        state=state[order],
        grid=grid,
        quantity=quantity,
        source=str(path),
        time=_known(times, path, options)[order],
        notes=notes,
    )
    yield turned(piece, flips)


def _field(
    part: Part, options: ReadOptions, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Quantity]:
    """Values `(H, W)`, their states, and what they mean."""
    stored, levels = _plane(whole(part.data, path), path), part.what
    gain, offset = (_number(levels, key, path) for key in ("gain", "offset"))
    for key, number in (("gain", gain), ("offset", offset)):
        if number is not None and not (np.isfinite(number) and (number or key == "offset")):
            raise FrameError(
                f"{path} has {key} {number:g}", expected="another number", fix="repair the file"
            )
    quantity = _quantity(part.quantity, levels, part.how, path)
    state = np.full(stored.shape, VALUE, np.uint8)
    for key, meaning in _marks(levels, options, path):
        number = _number(levels, key, path)
        assert number is not None, "_marks"
        state[np.isnan(stored) if np.isnan(number) else stored == number] = meaning
    state[np.isnan(stored) & (state == VALUE)] = NO_DATA
    if _is_one_number(levels, path):
        state[_unexplained(stored, state, levels, options, path)] = NO_DATA
    wide = stored.astype(np.float64)  # 32 bits would lose digits near 0
    frame = (wide * (1.0 if gain is None else gain) + (offset or 0.0)).astype(np.float32)
    if quantity.no_echo is None:
        state[state == NO_ECHO] = NO_DATA
    else:
        frame[state == NO_ECHO] = quantity.no_echo
    frame[state == NO_DATA] = np.nan
    return frame, state, quantity


def _plane(stored: NDArray[Any], path: Path) -> NDArray[Any]:
    """`(H, W)`, also where dimensions of one stand before it."""
    shape = stored.shape
    if stored.ndim < 2 or any(side != 1 for side in shape[:-2]):
        raise FrameError(
            f"{path} has data of the shape {shape}",
            expected="rows and columns",
            fix="write each field as a dataset of its own",
        )
    return stored.reshape(shape[-2:])


def _marks(levels: Levels, options: ReadOptions, path: Path) -> list[tuple[str, int]]:
    """The attributes whose number is no value, the stronger one last.

    Where both are the same number nobody knows which of the two a pixel is: no data, as pysteps has
    it, unless the user states that nothing was there.
    """
    found = [
        (key, meaning)
        for key, meaning in (("undetect", NO_ECHO), ("nodata", NO_DATA))
        if key in levels
    ]
    if options.nan == "no-echo":
        if not _is_one_number(levels, path):
            raise states_itself("nan", path, "odim")
        return found[:1]
    return found


def _is_one_number(levels: Levels, path: Path) -> bool:
    """Whether nodata and undetect are both there and the same."""
    numbers = [str(_number(levels, key, path)) for key in ("nodata", "undetect") if key in levels]
    return len(numbers) == 2 and len(set(numbers)) == 1


def _unexplained(
    stored: NDArray[Any], state: NDArray[np.uint8], levels: Levels, options: ReadOptions, path: Path
) -> NDArray[np.bool_]:
    """Pixels of the greatest number of bits, the usual one for no data, that nothing else marks.

    Raises:
        FrameError: they are more than `ReadOptions.bad_pixels`.
    """
    if stored.dtype.kind != "u":
        return np.zeros(stored.shape, bool)
    most = int(np.iinfo(stored.dtype).max)
    found: NDArray[np.bool_] = (stored == most) & (state == VALUE)
    share = float(found.mean())
    if share > options.bad_pixels:
        gain, offset = (_number(levels, key, path) for key in ("gain", "offset"))
        value = most * (1.0 if gain is None else gain) + (offset or 0.0)
        raise FrameError(
            f"{path} has nodata and undetect both {levels['nodata']}, and {share:.1%} of its "
            f"pixels are {most}, which would be {value:g}",
            expected="one number for each",
            fix=f"--bad-pixels {np.ceil(100 * share) / 100:g} takes them as no data",
        )
    return found


def _one_quantity(
    quantities: tuple[Quantity, ...], chosen: list[Part], path: Path, *, at_once: bool
) -> Quantity:
    first = quantities[0]
    if spans := {one.accumulation_s for one in quantities} - {first.accumulation_s}:
        raise FrameError(
            f"{path} holds amounts of {first.accumulation_s} s and of {spans.pop()} s",
            expected="amounts of one period",
            fix=f"--select dataset={chosen[0].label}",
        )
    if not at_once:
        return first
    return replace(first, channels=tuple(f"dataset{part.label}" for part in chosen))


def _known(times: list[Any], path: Path, options: ReadOptions) -> Times:
    """The times, or the one in the file's name."""
    if times[0] is not None:
        return np.array(times, "datetime64[ns]")
    found = file_time(path, options)
    if found is None:
        raise FrameError(
            f"{path} says no time",
            expected="/what with date and time",
            fix="repair the file, or --time-format PATTERN for the time in its name",
        )
    return np.array([found])


def _refuse_polar(file: Any, path: Path) -> None:
    kind = str(attributes(file, "what").get("object", "COMP"))
    if kind not in ("COMP", "IMAGE", "CVOL"):
        raise FrameError(
            f"{path} is an ODIM file of the kind {kind}",
            expected="a composite on a grid (COMP or IMAGE)",
            fix="grid the volume first, for example with wradlib or xradar",
        )


def _number(levels: Levels, key: str, path: Path) -> float | None:
    """An attribute as a number; None where there is none.

    Raises:
        FrameError: it is there and no number.
    """
    if key not in levels:
        return None
    try:
        return float(levels[key])
    except (TypeError, ValueError) as error:
        raise FrameError(
            f"{path} has {key} {levels[key]!r}", expected="a number", fix="repair the file"
        ) from error


def _quantity(name: str, levels: Levels, how: Levels, path: Path) -> Quantity:
    zr = None
    if {"zr_a", "zr_b"} <= how.keys():
        a, b = (_number(how, key, path) or 0.0 for key in ("zr_a", "zr_b"))
        if not (a > 0 and b > 0):
            raise FrameError(
                f"{path} has zr_a {how['zr_a']} and zr_b {how['zr_b']}",
                expected="numbers above 0",
                fix="repair the file",
            )
        zr = (a, b)
    if name == "RATE":
        return rain_rate(zr)
    if name == "ACRR":
        start, end = (stamp(levels, edge, path) for edge in ("start", "end"))
        span = 0.0
        if start is not None and end is not None:
            span = float((end - start) / np.timedelta64(1, "s"))
        if span < 0:
            raise FrameError(
                f"{path} has an amount from {start} to {end}",
                expected="an end after the start",
                fix="repair startdate, starttime, enddate and endtime of the file",
            )
        return rain_amount(span or None, zr)
    if is_reflectivity(name):
        return reflectivity(zr)
    return Quantity(name, _OTHERS.get(name, "unknown"))


def _grid(parts: list[Part], shape: tuple[int, ...], path: Path) -> tuple[Grid, Flips]:
    """The outer corners, projected; pixel sizes as written where they agree with the corners."""
    where = parts[0].where
    keys = ("projdef", "LL_lon", "LL_lat", "UR_lon", "UR_lat")
    for other in parts[1:]:
        if [other.where.get(key) for key in keys] != [where.get(key) for key in keys]:
            raise FrameError(
                f"{path} has dataset {other.label} on another grid than {parts[0].label}",
                expected="one grid",
                fix=f"--select dataset={parts[0].label}",
            )
    missing = {"projdef", "LL_lon", "LL_lat", "UR_lon", "UR_lat"} - where.keys()
    if missing:
        raise FrameError(
            f"{path} lacks {', '.join(sorted(missing))} in where",
            expected="a georeferenced composite",
            fix="repair the file",
        )
    projection, name = str(where["projdef"]), str(path)
    corners = {
        corner: project(
            projection,
            _number(where, f"{corner}_lon", path) or 0.0,
            _number(where, f"{corner}_lat", path) or 0.0,
            name,
        )
        for corner in ("LL", "LR", "UL", "UR")
        if f"{corner}_lon" in where
    }
    crs, (height, width) = crs_of(projection, name), shape
    turn = 360.0 if crs.is_geographic else 0.0
    left, right = _edges(corners, 0, "L", "R", turn)
    bottom, top = _edges(corners, 1, "L", "U", 0.0)
    step_x = agreed_step(_number(where, "xscale", path), abs(right - left) / width, width)
    step_y = agreed_step(_number(where, "yscale", path), abs(top - bottom) / height, height)
    step_x, step_y = math.copysign(step_x, right - left), math.copysign(step_y, bottom - top)
    return placed((left, top, step_x, step_y), height, width, crs)


def _edges(
    corners: dict[str, tuple[float, float]], axis: int, first: str, second: str, turn: float
) -> tuple[float, float]:
    """Two opposite edges, the outermost where the corners of one are rounded.

    Args:
        corners: `LL`, `LR`, `UL`, `UR`: lower or upper, then left or right.
        axis: 0 for x, 1 for y.
        first: letter of the corners on one edge.
        second: of those on the other.
        turn: what to add where the second lies beyond the date line.
    """
    letter = 1 - axis
    low = [place[axis] for name, place in corners.items() if name[letter] == first]
    high = [place[axis] for name, place in corners.items() if name[letter] == second]
    if turn and max(high) <= min(low):
        high = [value + turn for value in high]
    if sum(high) / len(high) > sum(low) / len(low):
        return min(low), max(high)
    return max(low), min(high)
