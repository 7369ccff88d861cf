"""From where a file says that its pixels lie to a grid in metres or degrees, north and west first.

Every reader of frames that have a place goes through `placed`: the unit of the coordinates, the
way they run and where their longitudes begin are those of the file, and no two files agree.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from stpl_core.grid import Grid
from stpl_core.reader import Piece

_DEGREE = math.radians(1.0)

Flips = tuple[slice, slice]
"""Of the rows and columns of a frame as stored."""


def placed(
    affine: tuple[float, float, float, float], height: int, width: int, crs: Any
) -> tuple[Grid, Flips]:
    """The grid with row 0 in the north and column 0 in the west, and what brings frames there.

    Args:
        affine: left edge of the first column, upper edge of the first row, and the steps from
            one to the next, of either sign; in the unit of `crs`.
        height: rows.
        width: columns.
        crs: `pyproj.CRS`, or None where the coordinates have no place on the Earth.
    """
    if crs is not None:
        crs, unit = in_plain_units(crs)
        left, top, step_x, step_y = (value * unit for value in affine)
    else:
        left, top, step_x, step_y = affine
    rows, columns = slice(None), slice(None)
    if step_y > 0:
        top, step_y, rows = top + height * step_y, -step_y, slice(None, None, -1)
    if step_x < 0:
        left, step_x, columns = left + width * step_x, -step_x, slice(None, None, -1)
    geographic = crs is not None and bool(crs.is_geographic)
    if geographic:
        left = western(left, width * step_x)
    wkt = "" if crs is None else str(crs.to_wkt())
    return Grid((left, top, step_x, step_y), height, width, wkt, geographic), (rows, columns)


def turned(piece: Piece, flips: Flips) -> Piece:
    """A piece whose frames are as stored, brought to its grid."""
    rows, columns = flips
    return replace(
        piece,
        frames=np.ascontiguousarray(piece.frames[..., rows, columns]),
        state=np.ascontiguousarray(piece.state[..., rows, columns]),
    )


def western(left: float, span: float) -> float:
    """The western edge as a longitude from -180 to 180, where that cuts nothing apart.

    A grid around the Earth keeps the meridian that it begins at.
    """
    turned = left - 360.0 * math.floor((left + 180.0) / 360.0)
    # An edge half a pixel west of -180 belongs to a pixel that lies on it.
    return left if span >= 359.0 and -181.0 <= left < 180.0 else turned


def in_plain_units(crs: Any) -> tuple[Any, float]:
    """The same reference system in metres or degrees, flat, and the factor of its old unit."""
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    crs = _polar_b(crs.to_2d() if len(crs.axis_info) > 2 else crs)
    if not crs.axis_info:
        return crs, 1.0
    wanted = _DEGREE if crs.is_geographic else 1.0
    unit = float(crs.axis_info[0].unit_conversion_factor or wanted) / wanted
    if abs(unit - 1.0) < 1e-9:
        return crs, 1.0
    from pyproj import CRS

    described = crs.to_json_dict()
    inner = described.get("source_crs", described)
    for axis in inner["coordinate_system"]["axis"]:
        axis["unit"] = "degree" if crs.is_geographic else "metre"
    inner.pop("id", None)
    return CRS.from_json_dict(described), unit


def _polar_b(crs: Any) -> Any:
    """Polar stereographic of variant C, which PROJ does not compute, as the same in variant B."""
    operation = crs.coordinate_operation
    if operation is None or operation.method_name != "Polar Stereographic (variant C)":
        return crs
    from pyproj import CRS, Transformer

    described = crs.to_json_dict()
    conversion = described["conversion"]
    conversion["method"] = {"name": "Polar Stereographic (variant B)"}
    given = {one["name"]: one for one in conversion["parameters"]}
    names = ("Latitude of standard parallel", "Longitude of origin")
    easting, northing = given["Easting at false origin"], given["Northing at false origin"]
    easting["name"], northing["name"] = "False easting", "False northing"
    for one in (conversion, *conversion["parameters"]):
        one.pop("id", None)
    described.pop("id", None)
    origin = northing["value"]
    northing["value"] = 0.0
    conversion["parameters"] = [given[name] for name in names] + [easting, northing]
    at_pole = CRS.from_json_dict(described)
    parallel, meridian = (given[name]["value"] for name in names)
    onto = Transformer.from_crs(at_pole.geodetic_crs, at_pole, always_xy=True)
    northing["value"] = origin - onto.transform(meridian, parallel)[1]
    return CRS.from_json_dict(described)
