"""Where the points of a GRIB message lie: degrees, a rotated pole, or metres of a projection.

The first point and the steps place it, in the projection that the keys describe, on the Earth that
they name. Gaussian, spectral and unstructured grids are refused by name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.grid import Grid
from stpl_core.reader import agreed_step
from stpl_core.readers.placing import placed
from stpl_core.readers.projections import crs_of, lon_lat_wkt, project

Keys = dict[str, Any]

_PLACED = ("regular_ll", "rotated_ll")
_PROJECTED = ("lambert", "polar_stereographic", "mercator", "lambert_azimuthal_equal_area")


def refuse_unplaced(keys: Keys, path: Path) -> None:
    """Refuse a message on a grid that is not one of equal pixels that we know.

    Raises:
        FrameError: it is, with what to do.
    """
    kind = str(keys["gridType"])
    if kind in (*_PLACED, *_PROJECTED) and keys["Ni"] and keys["Nj"]:
        return
    even = " -setgridtype,regular" if kind.startswith("reduced") else ""
    raise FrameError(
        f"{path} lies on a grid of the type {kind}",
        expected=", ".join((*_PLACED, *_PROJECTED)),
        fix=f"cdo -f grb2 remapbil,r1440x720{even} {path.name} regular.grib2",
    )


def grid_of_keys(keys: Keys, height: int, width: int, where: str) -> Grid:
    """The grid of a message whose first row is the north and first column the west.

    Raises:
        FrameError: a key that it needs is missing or not understood.
    """
    if keys["gridType"] in _PROJECTED:
        return _projected(keys, height, width, where)
    affine = _degrees(keys, height, width)
    if keys["gridType"] != "rotated_ll":
        return Grid(affine, height, width, lon_lat_wkt(), geographic=True)
    if keys["angleOfRotationInDegrees"]:
        raise FrameError(
            f"{where} has a pole turned by {keys['angleOfRotationInDegrees']} degrees",
            expected="a rotated pole without a turn",
            fix=f"cdo -f grb2 remapbil,r1440x720 {Path(where).name} regular.grib2",
        )
    pole = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": -float(keys["latitudeOfSouthernPoleInDegrees"]),
        "grid_north_pole_longitude": float(keys["longitudeOfSouthernPoleInDegrees"]) - 180.0,
        "north_pole_grid_longitude": 0.0,
    }
    return placed(affine, height, width, crs_of(pole, where))[0]


def _degrees(keys: Keys, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, width and height; longitudes from -180 where that does not cut it apart."""
    lats = sorted(float(keys[f"latitudeOf{edge}GridPointInDegrees"]) for edge in ("First", "Last"))
    lons = [float(keys[f"longitudeOf{edge}GridPointInDegrees"]) for edge in ("First", "Last")]
    west, east = lons[::-1] if keys["iScansNegatively"] else lons
    west -= 360.0 if west >= 180.0 else 0.0
    east += 360.0 * np.ceil((west - east) / 360.0) if east < west else 0.0
    east -= 360.0 * np.floor((east - west) / 360.0)
    measured_x = (east - west) / max(1, width - 1)
    measured_y = (lats[1] - lats[0]) / max(1, height - 1)
    step_x = agreed_step(keys["iDirectionIncrementInDegrees"], measured_x, width)
    step_y = agreed_step(keys["jDirectionIncrementInDegrees"], measured_y, height)
    return west - step_x / 2, lats[1] + step_y / 2, step_x, -step_y


def _refuse_unclear_rows(keys: Keys, where: str) -> None:
    """Refuse rows from the north in a projection without a last point.

    The flag says from the north; eccodes places them from the south all the same, and GDAL in a
    third way: nobody knows which its writer followed.
    """
    if keys["gridType"] in ("lambert", "polar_stereographic") and not keys["jScansPositively"]:
        raise FrameError(
            f"{where} has a {keys['gridType']} grid with jScansPositively = 0, which libraries "
            "read in different ways",
            expected="jScansPositively = 1",
            fix=f"grib_set -s jScansPositively=1 {Path(where).name} OUT, if its first row is the "
            "southernmost",
        )


def _projected(keys: Keys, height: int, width: int, where: str) -> Grid:
    _refuse_unclear_rows(keys, where)
    definition = _definition(keys, where)
    letters = "ij" if keys["gridType"] == "mercator" else "xy"
    step_x, step_y = (_number(keys, f"D{letter}InMetres", where) for letter in letters)
    if not (step_x > 0 and step_y > 0):
        raise FrameError(
            f"{where} has pixels of {step_x:g} x {step_y:g} m",
            expected="sizes above 0",
            fix="grib_set -s DxInMetres=SIZE,DyInMetres=SIZE IN OUT, with its true size",
        )
    lon, lat = (
        _number(keys, f"{axis}OfFirstGridPointInDegrees", where)
        for axis in ("longitude", "latitude")
    )
    x, y = project(definition, lon, lat, where)
    west = x - (width - 1) * step_x if keys["iScansNegatively"] else x
    north = y + (height - 1) * step_y if keys["jScansPositively"] else y
    affine = (west - step_x / 2, north + step_y / 2, step_x, -step_y)
    return placed(affine, height, width, crs_of(definition, where))[0]


def _definition(keys: Keys, where: str) -> str:
    """The projection as PROJ writes it."""

    def number(key: str) -> float:
        return _number(keys, key, where)

    kind = keys["gridType"]
    if kind == "lambert":
        text = (
            f"+proj=lcc +lat_0={number('LaDInDegrees')!r} +lon_0={number('LoVInDegrees')!r} "
            f"+lat_1={number('Latin1InDegrees')!r} +lat_2={number('Latin2InDegrees')!r}"
        )
    elif kind == "polar_stereographic":
        side = -1.0 if keys["southPoleOnProjectionPlane"] else 1.0
        text = (
            f"+proj=stere +lat_0={side * 90.0!r} "
            f"+lat_ts={side * abs(number('LaDInDegrees'))!r} "
            f"+lon_0={number('orientationOfTheGridInDegrees')!r}"
        )
    elif kind == "mercator":
        if keys["orientationOfTheGridInDegrees"]:
            raise FrameError(
                f"{where} has a Mercator grid turned by "
                f"{keys['orientationOfTheGridInDegrees']} degrees",
                expected="rows along the parallels",
                fix=f"cdo -f grb2 remapbil,r1440x720 {Path(where).name} regular.grib2",
            )
        middle = 180.0 if _crosses_the_date_line(keys) else 0.0
        text = f"+proj=merc +lat_ts={number('LaDInDegrees')!r} +lon_0={middle!r}"
    else:
        text = (
            f"+proj=laea +lat_0={number('standardParallelInDegrees')!r} "
            f"+lon_0={number('centralLongitudeInDegrees')!r}"
        )
    return f"{text} {_earth(keys, where)} +units=m +type=crs"


def _crosses_the_date_line(keys: Keys) -> bool:
    first, last = (
        math.remainder(float(keys[f"longitudeOf{edge}GridPointInDegrees"] or 0.0), 360.0)
        for edge in ("First", "Last")
    )
    return first < last if keys["iScansNegatively"] else last < first


def _earth(keys: Keys, where: str) -> str:
    if keys["radius"]:
        return f"+R={float(keys['radius'])!r}"
    major, minor = (_number(keys, f"earth{axis}AxisInMetres", where) for axis in ("Major", "Minor"))
    return f"+a={major!r} +b={minor!r}"


def _number(keys: Keys, key: str, where: str) -> float:
    if keys[key] is None:
        raise FrameError(
            f"{where} has no {key} on its grid of the type {keys['gridType']}",
            expected="a number",
            fix=f"grib_set -s {key}=NUMBER IN OUT",
        )
    return float(keys[key])
