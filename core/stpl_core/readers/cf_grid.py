"""The grid of a CF dataset: which dimensions are y and x, where they lie, which way they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.readers.cf_crs import mapping_crs
from stpl_core.readers.coordinate_units import in_degrees, in_metres_or_degrees, says_degrees
from stpl_core.readers.placing import in_plain_units, placed
from stpl_core.readers.projections import crs_of

if TYPE_CHECKING:
    import xarray as xr

_PLACES = {
    "latitude": ("lat", "latitude", "xlat", "nav_lat", "lats"),
    "longitude": ("lon", "longitude", "xlong", "nav_lon", "lons", "long"),
}
_MOST_UNEVEN = 0.05
"""Pixels by which a coordinate may leave an even grid: 32-bit coordinates are rounded."""

Doubles = NDArray[np.float64]


def is_place(name: str, variable: xr.DataArray) -> bool:
    """Whether a variable is the latitude or longitude of every pixel."""
    return any(_is_called(name, variable, which) for which in _PLACES)


def grid_and_flips(
    opened: xr.Dataset, values: xr.DataArray, y: str, x: str, where: str
) -> tuple[Grid, slice, slice]:
    """The grid with row 0 in the north and column 0 in the west, and the slices that make it so.

    Raises:
        FrameError: coordinates that are not evenly spaced or of no known unit, or a projection
            nobody knows.
    """
    height, width = values.sizes[y], values.sizes[x]
    lines = None if y not in opened.coords or x not in opened.coords else (opened[y], opened[x])
    crs = mapping_crs(opened, values, (y, x), where)
    if lines is not None and crs is None and all(map(says_degrees, lines)):
        crs = crs_of("OGC:CRS84", where)
    if lines is None or crs is None or all(_says_nothing(line) for line in lines):
        everywhere = _everywhere(opened, y, x, where)
        if everywhere is not None:
            grid, (rows, columns) = _from_every_place(*everywhere, crs)
            return grid, rows, columns
    if lines is None:
        return pixel_grid(height, width), slice(None), slice(None)
    if crs is not None:
        crs = _of_the_lines(crs, lines)
    ys, xs = (in_metres_or_degrees(line, crs, where) for line in lines)
    if crs is not None and crs.is_geographic:
        xs = np.unwrap(xs, period=360.0)
    step_y, step_x = _step(ys, y, where), _step(xs, x, where)
    affine = (float(xs[0]) - step_x / 2, float(ys[0]) - step_y / 2, step_x, step_y)
    # The coordinates are in metres or degrees by now, whatever the unit of the mapping is.
    plain = None if crs is None else in_plain_units(crs)[0]
    grid, (rows, columns) = placed(affine, height, width, plain)
    return grid, rows, columns


def _says_nothing(line: xr.DataArray) -> bool:
    return not line.attrs.get("units") and not line.attrs.get("standard_name")


def _of_the_lines(crs: Any, lines: tuple[xr.DataArray, xr.DataArray]) -> Any:
    """Latitudes and longitudes are no coordinates of a projection, but of what it is made from."""
    named = {str(line.attrs.get("standard_name", "")) for line in lines}
    return crs.geodetic_crs if named == {"latitude", "longitude"} else crs


def _everywhere(opened: xr.Dataset, y: str, x: str, where: str) -> tuple[Doubles, Doubles] | None:
    """Latitude and longitude of every pixel, `(H, W)`, if the file has them; NaN off the disk."""
    found: list[Doubles] = []
    for which in _PLACES:
        for name, variable in opened.variables.items():
            if set(variable.dims[-2:]) != {y, x} or not _is_called(str(name), opened[name], which):
                continue
            plane = opened[name].isel(dict.fromkeys(variable.dims[:-2], 0))
            found.append(in_degrees(plane.transpose(y, x), where))
            break
    return (found[0], found[1]) if len(found) == 2 else None


def _is_called(name: str, variable: xr.DataArray, which: str) -> bool:
    units = str(variable.attrs.get("units", "")).lower().replace("degrees", "degree")
    if variable.attrs.get("standard_name"):
        return str(variable.attrs["standard_name"]) == which
    end = {"latitude": ("degree_north", "degree_n"), "longitude": ("degree_east", "degree_e")}
    return units in end[which] or (name.lower() in _PLACES[which] and variable.ndim >= 2)


def _from_every_place(lat: Doubles, lon: Doubles, crs: Any) -> tuple[Grid, tuple[slice, slice]]:
    """A grid of the projection, or of degrees, if the places lie on one; else pixels, north up."""
    height, width = lat.shape
    everywhere = bool(np.isfinite(lat).all() and np.isfinite(lon).all())
    planes = []
    if everywhere:
        even = np.unwrap(np.unwrap(lon, period=360.0, axis=1), period=360.0, axis=0)
        planes.append((crs_of("OGC:CRS84", ""), even, lat))
    if everywhere and crs is not None and not crs.is_geographic:
        from pyproj import Transformer

        flat, _ = in_plain_units(crs)
        onto = Transformer.from_crs(flat.geodetic_crs, flat, always_xy=True)
        planes.insert(0, (flat, *onto.transform(lon, lat)))
    for plane, x, y in planes:
        affine = _even_plane(np.asarray(x), np.asarray(y))
        if affine is not None:
            return placed(affine, height, width, plane)
    back, forth = slice(None, None, -1), slice(None)
    rows = back if _middle(np.diff(lat, axis=0)) > 0 else forth
    east = np.diff(lon, axis=1)
    columns = back if _middle(east - 360.0 * np.round(east / 360.0)) < 0 else forth
    return pixel_grid(height, width), (rows, columns)


def _middle(steps: Doubles) -> float:
    """The median of the steps that are there; 0 where none is."""
    known = steps[np.isfinite(steps)]
    return float(np.median(known)) if known.size else 0.0


def _even_plane(x: Doubles, y: Doubles) -> tuple[float, float, float, float] | None:
    """The affine of pixels of one size along the axes; None where they are not."""
    height, width = x.shape
    if min(height, width) < 2:
        return None
    step_x = float((x[:, -1] - x[:, 0]).mean()) / (width - 1)
    step_y = float((y[-1] - y[0]).mean()) / (height - 1)
    left, top = float(x[:, 0].mean()), float(y[0].mean())
    if not (step_x and step_y):
        return None
    off_x = np.abs(x - left - step_x * np.arange(width)).max() / abs(step_x)
    off_y = np.abs(y - top - step_y * np.arange(height)[:, None]).max() / abs(step_y)
    if not max(off_x, off_y) < _MOST_UNEVEN:
        return None
    return left - step_x / 2, top - step_y / 2, step_x, step_y


def _step(values: Doubles, name: str, where: str) -> float:
    if len(values) == 1:
        return 1.0
    step = float(values[-1] - values[0]) / (len(values) - 1)
    ideal = values[0] + step * np.arange(len(values))
    if not np.abs(values - ideal).max() <= _MOST_UNEVEN * abs(step) or step == 0:
        raise FrameError(
            f"{where} has an uneven coordinate {name}",
            expected="pixels of one size",
            fix="interpolate it to an even grid first",
        )
    return step
