"""ODIM HDF5 composites (OPERA and the national services), by h5py.

`what` and `how` stand at the data, the dataset or the file and each level completes the one below;
strings are bytes or str, numbers may be arrays of one. nodata and undetect are two states. The
nominal time of the file counts, not the window of the scans.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions, agreed_step
from stpl_core.readers.hdf5 import SUFFIXES, has, plain
from stpl_core.readers.hdf5_checks import open_hdf5, whole
from stpl_core.readers.names import file_time
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of, project
from stpl_core.readers.units import rain_amount, rain_rate, reflectivity

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "ODIM HDF5 composites: RATE, ACRR, DBZH, TH and their like"
_PREFERRED = ("RATE", "DBZH", "ACRR", "TH")
_REFLECTIVITY = re.compile(r"(?:T|DBZ)[HV]?C?")
"""Total, corrected and attenuation-corrected reflectivity, of either polarisation."""
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

_Levels = dict[str, Any]


def recognises(path: Path) -> bool:
    """Whether it says that it follows ODIM, or has the groups of ODIM."""
    return path.is_file() and (has(path, "dataset1/what") or has(path, "dataset1/data1/what"))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a composite."""
    with open_hdf5(path) as file:
        _refuse_polar(file, path)
        name, data, levels, how = _pick(file, options.variable, path)
        stored = whole(data, path)
        gain, offset = (_number(levels, key, path) for key in ("gain", "offset"))
        quantity = _quantity(name, levels, how, path)
        state = np.full(stored.shape, VALUE, np.uint8)
        for key, meaning in (("undetect", NO_ECHO), ("nodata", NO_DATA)):
            if key in levels:
                state[stored == _number(levels, key, path)] = meaning
        state[np.isnan(stored)] = NO_DATA
        frame = (
            stored * (1.0 if gain is None else gain) + (0.0 if offset is None else offset)
        ).astype(np.float32)
        if quantity.no_echo is None:
            state[state == NO_ECHO] = NO_DATA
        else:
            frame[state == NO_ECHO] = quantity.no_echo
        frame[state == NO_DATA] = np.nan
        what = _attributes(file, "what")
        grid, flips = _grid(file, stored.shape, path)
        piece = Piece(
            frames=frame[None, None],  # (1, 1, H, W)
            state=state[None],
            grid=grid,
            quantity=quantity,
            source=str(path),
            time=np.array([_time(what, path, options)]),
            notes={"institution": str(what["source"])} if "source" in what else {},
        )
        yield turned(piece, flips)


def _attributes(group: Any, name: str) -> _Levels:
    if name not in group:
        return {}
    return {key: plain(value) for key, value in group[name].attrs.items()}


def _refuse_polar(file: Any, path: Path) -> None:
    kind = str(_attributes(file, "what").get("object", "COMP"))
    if kind not in ("COMP", "IMAGE", "CVOL"):
        raise FrameError(
            f"{path} is an ODIM file of the kind {kind}",
            expected="a composite on a grid (COMP or IMAGE)",
            fix="grid the volume first, for example with wradlib or xradar",
        )


def _pick(file: Any, wanted: str | None, path: Path) -> tuple[str, Any, _Levels, _Levels]:
    """The quantity's name, its data, and its `what` and `how` with those above them."""
    found: dict[str, tuple[Any, _Levels, _Levels]] = {}
    for dataset in sorted(key for key in file if re.fullmatch(r"dataset\d+", key)):
        for part in sorted(key for key in file[dataset] if re.fullmatch(r"data\d+", key)):
            groups = (file, file[dataset], file[dataset][part])
            what, how = (
                {key: value for group in groups for key, value in _attributes(group, kind).items()}
                for kind in ("what", "how")
            )
            quantity = str(what.get("quantity"))
            found.setdefault(quantity, (file[dataset][part]["data"], what, how))
    known = [name for name in (*_PREFERRED, *found) if name in found and _is_rain(name)]
    name = wanted or next(iter(known), None)
    if name is not None and name in found:
        return (name, *found[name])
    raise FrameError(
        f"{path} holds the quantities {', '.join(found) or 'none'}",
        expected=wanted or "rain (RATE, ACRR) or reflectivity (DBZH, TH, ...)",
        fix=f"--variable {(known or list(found))[0]}" if found else "another file",
    )


def _is_rain(name: str) -> bool:
    return name in _PREFERRED or _REFLECTIVITY.fullmatch(name) is not None


def _number(levels: _Levels, key: str, path: Path) -> float | None:
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


def _quantity(name: str, levels: _Levels, how: _Levels, path: Path) -> Quantity:
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
        start, end = (_stamp(levels, edge, path) for edge in ("start", "end"))
        span = (
            None if start is None or end is None else float((end - start) / np.timedelta64(1, "s"))
        )
        return rain_amount(span, zr)
    if _REFLECTIVITY.fullmatch(name):
        return reflectivity(zr)
    return Quantity(name, _OTHERS.get(name, "unknown"))


def _stamp(levels: _Levels, edge: str, path: Path) -> np.datetime64 | None:
    """The date and time of `startdate` and its like; None where they are not there."""
    if f"{edge}date" not in levels or f"{edge}time" not in levels:
        return None
    date, clock = str(levels[f"{edge}date"]), str(levels[f"{edge}time"])
    try:
        if not (re.fullmatch(r"\d{8}", date) and re.fullmatch(r"\d{4}(\d\d)?", clock)):
            raise ValueError("not of 8 and of 4 or 6 digits")
        d, t = date, clock.ljust(6, "0")
        return np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}T{t[:2]}:{t[2:4]}:{t[4:]}", "ns")
    except ValueError as error:
        raise FrameError(
            f"{path} has the {edge}date {date!r} and {edge}time {clock!r}",
            expected="YYYYMMDD and HHMMSS",
            fix="repair the file, or --time-format PATTERN for the time in its name",
        ) from error


def _time(what: _Levels, path: Path, options: ReadOptions) -> np.datetime64:
    """The nominal time, or where the user states a pattern that of the name."""
    stamp = None if options.time_format else _stamp(what, "", path)
    stamp = stamp or file_time(path, options)
    if stamp is None:
        raise FrameError(
            f"{path} says no time",
            expected="/what with date and time",
            fix="repair the file, or --time-format PATTERN for the time in its name",
        )
    return stamp


def _grid(file: Any, shape: tuple[int, ...], path: Path) -> tuple[Grid, Flips]:
    """The outer corners, projected; pixel sizes as written where they agree with the corners."""
    where = {**_attributes(file["dataset1"], "where"), **_attributes(file, "where")}
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
            projection, float(where[f"{corner}_lon"]), float(where[f"{corner}_lat"]), name
        )
        for corner in ("LL", "LR", "UL", "UR")
        if f"{corner}_lon" in where
    }
    crs, (height, width) = crs_of(projection, name), shape
    turn = 360.0 if crs.is_geographic else 0.0
    left, right = _edges(corners, 0, "L", "R", turn)
    bottom, top = _edges(corners, 1, "L", "U", 0.0)
    step_x = agreed_step(where.get("xscale"), abs(right - left) / width, width)
    step_y = agreed_step(where.get("yscale"), abs(top - bottom) / height, height)
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
