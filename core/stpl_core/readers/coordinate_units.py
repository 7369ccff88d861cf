"""Coordinates of pixels in metres or degrees, whatever unit they are written in."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.readers.cf_mapping import geostationary_height
from stpl_core.readers.placing import in_plain_units

if TYPE_CHECKING:
    import xarray as xr

_PREFIXES = {"": 1.0, "k": 1e3, "kilo": 1e3, "h": 1e2, "hecto": 1e2, "c": 1e-2, "centi": 1e-2}
_METRES = {
    **{f"{p}{m}": f for p, f in _PREFIXES.items() for m in ("m", "meter", "metre")},
    "ft": 0.3048,
    "foot": 0.3048,
    "feet": 0.3048,
    "us_survey_foot": 1200 / 3937,
    "us survey foot": 1200 / 3937,
    "nautical_mile": 1852.0,
}
_SMALL = {"": 1.0, "m": 1e-3, "milli": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "micro": 1e-6}
_RADIANS = {
    **{f"{p}{r}": f for p, f in _SMALL.items() for r in ("rad", "radian")},
    "degree": math.radians(1.0),
    "deg": math.radians(1.0),
    "°": math.radians(1.0),
    "arc_second": math.radians(1.0) / 3600,
    "arcsec": math.radians(1.0) / 3600,
    "arc_minute": math.radians(1.0) / 60,
    "arcmin": math.radians(1.0) / 60,
}
_DEGREES = re.compile(r"degrees?([_ ]?(north|south|east|west|true|[nsew]))?")
_COUNTED_BACK = re.compile(r"degrees?([_ ]?(south|west)|[_ ][sw])|degrees?w|degreess")
"""Units of latitudes and longitudes that grow to the south and west."""
_NUMBERED = re.compile(r"([\d.]+(?:e[+-]?\d+)?)?\s*(.*)")


def says_degrees(line: xr.DataArray) -> bool:
    """Whether a coordinate without a grid mapping is a longitude or latitude."""
    if str(line.attrs.get("standard_name", "")) in ("latitude", "longitude"):
        return True
    units = str(line.attrs.get("units", "")).strip().lower()
    named = str(line.name).lower() in ("lat", "latitude", "lon", "longitude")
    return bool(_DEGREES.fullmatch(units)) or (named and not units)


def in_metres_or_degrees(line: xr.DataArray, crs: Any, where: str) -> NDArray[np.float64]:
    """Values of a coordinate in the plain unit of `crs`; as they are where there is none.

    Raises:
        FrameError: a unit that is none of a length or an angle.
    """
    values = line.values.astype(np.float64)
    if _is_counted_back(line):
        values = -values
    if crs is None:
        return values * _METRES.get(_singular(line), 1.0)
    plain, written = in_plain_units(crs)
    unit = _singular(line)
    height_m = geostationary_height(plain)
    if "azimuth" in str(line.attrs.get("long_name", "")).lower() and height_m is not None:
        values = -values  # of Meteosat's third generation: counted from the south to the west
    if height_m is not None and unit in ("", "1") and np.abs(values).max() < 1.0:
        unit = "rad"  # as metres they would lie below the satellite's shadow
    if unit in ("", "1"):
        return values * written
    factor = _factor(unit, plain, height_m)
    if factor is None:
        raise FrameError(
            f"{where} has the coordinate {line.name} in {line.attrs.get('units')}",
            expected="degrees" if plain.is_geographic else "m, km or, from a satellite, rad",
            fix=f"ncatted -a units,{line.name},o,c,UNIT FILE, with the unit that it is in",
        )
    return values * factor


def in_degrees(line: xr.DataArray, where: str) -> NDArray[np.float64]:
    """Latitudes or longitudes of any shape in degrees to the north and east.

    Raises:
        FrameError: a unit that is none of an angle.
    """
    number, word = _parted(_singular(line) or "degree")
    if word not in _RADIANS:
        raise FrameError(
            f"{where} has the coordinate {line.name} in {line.attrs.get('units')}",
            expected="degrees",
            fix=f"ncatted -a units,{line.name},o,c,UNIT FILE, with the unit that it is in",
        )
    factor = number * _RADIANS[word] / math.radians(1.0) * (-1 if _is_counted_back(line) else 1)
    return np.asarray(line.values.astype(np.float64) * factor)


def _is_counted_back(line: xr.DataArray) -> bool:
    return _COUNTED_BACK.fullmatch(str(line.attrs.get("units", "")).strip().lower()) is not None


def kind_of(line: xr.DataArray) -> str:
    """`length`, `angle`, or nothing where the unit does not say."""
    _, unit = _parted(_singular(line))
    return "length" if unit in _METRES else "angle" if unit in _RADIANS else ""


def _factor(unit: str, crs: Any, height_m: float | None) -> float | None:
    number, word = _parted(unit)
    if crs.is_geographic:
        return None if word not in _RADIANS else number * _RADIANS[word] / math.radians(1.0)
    if word in _METRES:
        return number * _METRES[word]
    if word in _RADIANS and height_m is not None:
        return number * _RADIANS[word] * height_m
    return None


def _parted(unit: str) -> tuple[float, str]:
    match = _NUMBERED.fullmatch(unit)
    assert match is not None, "any text"
    return float(match[1] or 1.0), match[2]


def _singular(line: xr.DataArray) -> str:
    """The unit, lower case, without the plural or what a degree counts."""
    text = str(line.attrs.get("units", "")).strip().lower()
    if _DEGREES.fullmatch(text):
        return "degree"
    return text[:-1] if text.endswith("s") and len(text) > 2 else text
