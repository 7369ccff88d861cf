"""KNMI's HDF5 radar products (rain amounts and reflectivity), by h5py.

Values by the formula `GEO=a*PV+b`; the earth's radius and the pixels are in km (kept here in
metres). Missing and out of the image are both no data; but a 0 is no echo where only "missing" is
0, as in the reflectivity composites, whose unseen pixels are out of the image (pysteps agrees).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE, Piece, Quantity, ReadOptions
from stpl_core.readers.hdf5 import SUFFIXES, has, plain
from stpl_core.readers.hdf5_checks import open_hdf5, whole
from stpl_core.readers.placing import Flips, placed, turned
from stpl_core.readers.projections import crs_of
from stpl_core.readers.units import rain_amount, reflectivity

__all__ = ["ABOUT", "SUFFIXES", "read", "recognises"]

ABOUT = "KNMI HDF5 radar: rain amount, reflectivity"
_NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
_FORMULA = re.compile(
    rf"GEO\s*=\s*(?P<gain>[-+]?\s*(?:{_NUMBER}))\s*\*\s*PV"
    rf"(?:\s*(?P<sign>[-+])\s*(?P<offset>[-+]?\s*(?:{_NUMBER})))?"
)
_KM = 1000.0
_ZR = (200.0, 1.6)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def recognises(path: Path) -> bool:
    """Whether it has KNMI's groups."""
    return path.is_file() and has(path, "image1/image_data", "geographic", "overview")


def read(path: Path, options: ReadOptions) -> Iterator[Piece]:
    """Yield the one frame of a product."""
    with open_hdf5(path) as file:
        stored = whole(file["image1/image_data"], path)
        calibration = _attributes(file["image1/calibration"])
        start, end = (
            _time(plain(file["overview"].attrs[f"product_datetime_{edge}"]), path)
            for edge in ("start", "end")
        )
        quantity = _quantity(
            str(plain(file["image1"].attrs["image_geo_parameter"])),
            float((end - start) / np.timedelta64(1, "s")),
            path,
        )
        grid, flips = _grid(file["geographic"], stored.shape, path)
    gain, offset = _formula(str(calibration["calibration_formulas"]), path)
    state = np.full(stored.shape, VALUE, np.uint8)
    unseen = {
        int(calibration[key])
        for key in ("calibration_missing_data", "calibration_out_of_image")
        if key in calibration
    }
    for number in unseen - {0} or unseen:
        state[stored == number] = NO_DATA
    state[(stored == 0) & (state != NO_DATA)] = NO_ECHO
    assert quantity.no_echo is not None
    frame = (stored * gain + offset).astype(np.float32)
    frame[state == NO_ECHO] = quantity.no_echo
    frame[state == NO_DATA] = np.nan
    piece = Piece(
        frames=frame[None, None],  # (1, 1, H, W)
        state=state[None],
        grid=grid,
        quantity=quantity,
        source=str(path),
        time=np.array([end]),
        notes={"institution": "KNMI"},
    )
    yield turned(piece, flips)


def _attributes(group: Any) -> dict[str, Any]:
    return {key: plain(value) for key, value in group.attrs.items()}


def _quantity(parameter: str, span_s: float, path: Path) -> Quantity:
    if parameter.upper().endswith("[MM]"):
        return rain_amount(span_s, _ZR)
    if parameter.upper().endswith("[DBZ]"):
        return reflectivity(_ZR)
    raise FrameError(
        f"{path} holds {parameter}",
        expected="a product in [MM] or [DBZ]",
        fix="choose another product",
    )


def _formula(text: str, path: Path) -> tuple[float, float]:
    match = _FORMULA.fullmatch(text.strip())
    if match is None:
        raise FrameError(
            f"{path} has the calibration {text!r}",
            expected="GEO=a*PV+b",
            fix="choose another product",
        )
    gain, offset = (float((match[key] or "0").replace(" ", "")) for key in ("gain", "offset"))
    return gain, -offset if match["sign"] == "-" else offset


def _time(text: Any, path: Path) -> np.datetime64:
    """`26-AUG-2010;03:00:00.000`, whatever the language of this machine."""
    match = re.fullmatch(r"(\d+)-([A-Z]{3})-(\d{4});([\d:.]+)", str(text).strip().upper())
    if match is None or match[2] not in _MONTHS:
        raise FrameError(
            f"{path} has the time {text!r}", expected="DD-MON-YYYY;HH:MM:SS", fix="repair the file"
        )
    day, month, year, clock = match.groups()
    return np.datetime64(f"{year}-{_MONTHS.index(month) + 1:02}-{int(day):02}T{clock}", "ns")


def _grid(geographic: Any, shape: tuple[int, ...], path: Path) -> tuple[Grid, Flips]:
    facts = _attributes(geographic)
    step_x, step_y = float(facts["geo_pixel_size_x"]), float(facts["geo_pixel_size_y"])
    unit = str(facts["geo_dim_pixel"]).partition(",")[0].upper()
    if unit not in ("KM", "M"):
        raise FrameError(
            f"{path} has pixels in {unit}", expected="KM or M", fix="choose another product"
        )
    scale = _KM if unit == "KM" else 1.0
    projection = _in_metres(
        str(plain(geographic["map_projection"].attrs["projection_proj4_params"]))
    )
    left = float(facts["geo_column_offset"]) * step_x * scale
    top = float(facts["geo_row_offset"]) * step_y * scale
    height, width = shape
    affine = (left, top, step_x * scale, step_y * scale)
    return placed(affine, height, width, crs_of(projection, str(path)))


def _in_metres(projection: str) -> str:
    """Radii in km become metres; `y_0=0` without its plus is repaired."""
    parts = []
    for part in projection.split():
        key, _, value = part.lstrip("+").partition("=")
        if key in ("a", "b", "R") and float(value) < 10_000:
            value = f"{float(value) * _KM:.12g}"
        parts.append(f"+{key}={value}" if value else f"+{key}")
    return " ".join([*parts, "+units=m", "+type=crs"])
