"""The grid of a CF dataset: which dimensions are y and x, where they lie, which way they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.readers.projections import crs_of, lon_lat_wkt

if TYPE_CHECKING:
    import xarray as xr

_KM = ("km", "kilometer", "kilometers", "kilometre", "kilometres")
_Y = ("y", "yc", "lat", "latitude", "rlat", "south_north", "height", "row")
_X = ("x", "xc", "lon", "longitude", "rlon", "west_east", "width", "column", "col")
_MOST_UNEVEN = 0.05
"""Pixels by which a coordinate may leave an even grid: 32-bit coordinates are rounded."""


def horizontal_dims(opened: xr.Dataset, values: xr.DataArray) -> tuple[str, str]:
    """Names of the dimensions along y and x; two empty strings where a variable is no field."""
    y = next((str(dim) for dim in values.dims if _is_axis(opened, dim, "Y", _Y)), "")
    x = next((str(dim) for dim in values.dims if _is_axis(opened, dim, "X", _X)), "")
    return (y, x) if y and x else ("", "")


def _is_axis(opened: xr.Dataset, dim: Any, axis: str, names: tuple[str, ...]) -> bool:
    attributes = opened[dim].attrs if dim in opened.coords else {}
    if attributes.get("axis"):
        return str(attributes["axis"]).upper() == axis
    standard = str(attributes.get("standard_name", ""))
    if standard:
        ends = {"Y": ("latitude", "_y_coordinate"), "X": ("longitude", "_x_coordinate")}[axis]
        return standard.endswith(ends)
    return str(dim).lower() in names


def grid_and_flips(
    opened: xr.Dataset, values: xr.DataArray, y: str, x: str, where: str
) -> tuple[Grid, slice, slice]:
    """The grid with row 0 in the north and column 0 in the west, and the slices that make it so.

    Raises:
        FrameError: coordinates that are not evenly spaced, or a projection nobody knows.
    """
    height, width = values.sizes[y], values.sizes[x]
    forward, back = slice(None), slice(None, None, -1)
    if y not in opened.coords or x not in opened.coords:
        return pixel_grid(height, width), forward, forward
    ys, xs = (_metres(opened[dim]) for dim in (y, x))
    rows = back if height > 1 and ys[-1] > ys[0] else forward
    columns = back if width > 1 and xs[-1] < xs[0] else forward
    ys, xs = ys[rows], xs[columns]
    crs = _crs(opened, values, where)
    degrees = crs.is_geographic if crs else _in_degrees(opened[y]) and _in_degrees(opened[x])
    wkt = crs.to_wkt() if crs else lon_lat_wkt() if degrees else ""
    step_y, step_x = _step(ys, y, where), _step(xs, x, where)
    affine = (float(xs[0]) - step_x / 2, float(ys[0]) - step_y / 2, step_x, step_y)
    return Grid(affine, height, width, wkt, degrees), rows, columns


def _metres(coordinate: xr.DataArray) -> NDArray[np.float64]:
    values = coordinate.values.astype(np.float64)
    units = str(coordinate.attrs.get("units", "")).lower()
    return values * 1000.0 if units in _KM else values


def _in_degrees(coordinate: xr.DataArray) -> bool:
    units = str(coordinate.attrs.get("units", "")).lower()
    return units.startswith("degree") or str(coordinate.name).lower() in (
        *("lat", "latitude"),
        *("lon", "longitude"),
    )


def _step(values: NDArray[np.float64], name: str, where: str) -> float:
    if len(values) == 1:
        return 1.0
    step = float(values[-1] - values[0]) / (len(values) - 1)
    ideal = values[0] + step * np.arange(len(values))
    if step == 0 or np.abs(values - ideal).max() > _MOST_UNEVEN * abs(step):
        raise FrameError(
            f"{where} has an uneven coordinate {name}",
            expected="pixels of one size",
            fix="interpolate it to an even grid first",
        )
    return step


def _crs(opened: xr.Dataset, values: xr.DataArray, where: str) -> Any:
    """The projection of the grid mapping, in metres or degrees; None where there is none."""
    name = values.attrs.get("grid_mapping") or values.encoding.get("grid_mapping")
    name = str(name).split(":")[0].split()[0] if name else None
    if name is None or name not in opened.variables:
        return None
    attributes = dict(opened[name].attrs)
    for key in ("crs_wkt", "spatial_ref", "proj4", "proj4_params"):
        if attributes.get(key):
            crs = crs_of(attributes[key], where)
            break
    else:
        crs = crs_of(attributes, where)
    scale = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    if not crs.is_geographic and scale != 1.0:  # coordinates were made metres above
        return _metric(crs, where)
    return crs


def _metric(crs: Any, where: str) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "lose information": only the unit changes
        parameters = crs.to_dict()
    parameters.update(units="m")
    parameters.pop("to_meter", None)
    return crs_of(" ".join(f"+{k}={v}" for k, v in parameters.items()) + " +type=crs", where)
