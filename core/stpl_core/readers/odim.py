"""ODIM HDF5 composites (OPERA and the national services), by h5py.

`what` stands at the data, the dataset or the file and each level completes the one below; strings
are bytes or str, numbers may be arrays of one. nodata and undetect are two states. The nominal time
of the file counts, not the window of the scans.
"""

from __future__ import annotations

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
from stpl_core.readers.projections import is_geographic, project, wkt_of
from stpl_core.readers.units import rain_amount, rain_rate, reflectivity

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "ODIM HDF5 composites: RATE, ACRR, DBZH, TH"
_PREFERRED = ("RATE", "DBZH", "ACRR", "TH")

_Levels = dict[str, Any]


def recognises(path: Path) -> bool:
    """Whether it says that it follows ODIM, or has the groups of ODIM."""
    return path.is_file() and (has(path, "dataset1/what") or has(path, "dataset1/data1/what"))


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a composite."""
    with open_hdf5(path) as file:
        _refuse_polar(file, path)
        what = _attributes(file, "what")
        name, data, levels = _pick(file, what, options.variable, path)
        stored = whole(data, path)
        nodata, undetect = levels.get("nodata"), levels.get("undetect")
        gain, offset = float(levels.get("gain", 1.0)), float(levels.get("offset", 0.0))
        quantity = _quantity(name, levels, _attributes(file, "how"), path)
        assert quantity.no_echo is not None
        state = np.full(stored.shape, VALUE, np.uint8)
        if undetect is not None:
            state[stored == undetect] = NO_ECHO
        if nodata is not None:
            state[stored == nodata] = NO_DATA
        state[np.isnan(stored)] = NO_DATA
        frame = (stored * gain + offset).astype(np.float32)
        frame[state == NO_ECHO] = quantity.no_echo
        frame[state == NO_DATA] = np.nan
        yield Piece(
            frames=frame[None, None],  # (1, 1, H, W)
            state=state[None],
            grid=_grid(file, stored.shape, path),
            quantity=quantity,
            source=str(path),
            time=np.array([_time(what, path)]),
            notes={"institution": str(what["source"])} if "source" in what else {},
        )


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


def _pick(file: Any, what: _Levels, wanted: str | None, path: Path) -> tuple[str, Any, _Levels]:
    """The quantity's name, its data and its `what` with those above it."""
    found: dict[str, tuple[Any, _Levels]] = {}
    for dataset in sorted(key for key in file if re.fullmatch(r"dataset\d+", key)):
        above = {**what, **_attributes(file[dataset], "what")}
        for part in sorted(key for key in file[dataset] if re.fullmatch(r"data\d+", key)):
            levels = {**above, **_attributes(file[dataset][part], "what")}
            found.setdefault(str(levels.get("quantity")), (file[dataset][part]["data"], levels))
    candidates = [wanted] if wanted else [*_PREFERRED, *found]
    for name in candidates:
        if name in found and (wanted or name in _PREFERRED):
            return name, *found[name]
    raise FrameError(
        f"{path} holds the quantities {', '.join(found) or 'none'}",
        expected=wanted or f"one of {', '.join(_PREFERRED)}",
        fix=f"--variable {next(iter(found), 'RATE')}",
    )


def _quantity(name: str, levels: _Levels, how: _Levels, path: Path) -> Quantity:
    zr = (float(how["zr_a"]), float(how["zr_b"])) if {"zr_a", "zr_b"} <= how.keys() else None
    if name == "RATE":
        return rain_rate(zr)
    if name in ("DBZH", "DBZV", "TH", "TV"):
        return reflectivity(zr)
    if name == "ACRR":
        start, end = (_stamp(levels, f"{edge}date", f"{edge}time") for edge in ("start", "end"))
        span = (
            None if start is None or end is None else float((end - start) / np.timedelta64(1, "s"))
        )
        return rain_amount(span, zr)
    raise FrameError(
        f"{path} holds {name}",
        expected="RATE, ACRR, DBZH, DBZV, TH or TV",
        fix="--variable RATE",
    )


def _stamp(levels: _Levels, date: str, time: str) -> np.datetime64 | None:
    if date not in levels or time not in levels:
        return None
    d, t = str(levels[date]), str(levels[time]).ljust(6, "0")
    return np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:8]}T{t[:2]}:{t[2:4]}:{t[4:6]}", "ns")


def _time(what: _Levels, path: Path) -> np.datetime64:
    stamp = _stamp(what, "date", "time")
    if stamp is None:
        raise FrameError(
            f"{path} says no time", expected="/what with date and time", fix="repair the file"
        )
    return stamp


def _grid(file: Any, shape: tuple[int, ...], path: Path) -> Grid:
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
    xs, ys = zip(*corners.values(), strict=True)
    height, width = shape
    step_x = agreed_step(where.get("xscale"), (max(xs) - min(xs)) / width, width)
    step_y = agreed_step(where.get("yscale"), (max(ys) - min(ys)) / height, height)
    affine, degrees = (min(xs), max(ys), step_x, -step_y), is_geographic(projection, name)
    return Grid(affine, height, width, wkt_of(projection, name), degrees)
