"""The reference system of a variable of a CF dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stpl_core.readers.coordinate_units import kind_of
from stpl_core.readers.projections import crs_of

if TYPE_CHECKING:
    import xarray as xr

_TEXTS = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4_string", "esri_pe_string")


def mapping_crs(
    opened: xr.Dataset, values: xr.DataArray, plane: tuple[str, str], where: str
) -> Any:
    """The `pyproj.CRS` of a variable's grid mapping; None where there is none for its axes.

    Args:
        opened: the dataset.
        values: the variable.
        plane: its dimensions along y and x.
        where: the file.

    Raises:
        FrameError: a projection that nobody knows.
    """
    name = _name(opened, values, plane)
    if name is None:
        return None
    attributes = dict(opened[name].attrs)
    for key in _TEXTS:
        if attributes.get(key):
            crs = crs_of(attributes[key], where)
            break
    else:
        crs = crs_of(_as_pyproj_reads_it(attributes), where)
    lengths = any(kind_of(opened[dim]) == "length" for dim in plane if dim in opened.coords)
    # One of latitude and longitude belongs to other coordinates than x and y in metres.
    return None if crs.is_geographic and lengths else crs


def _name(opened: xr.Dataset, values: xr.DataArray, plane: tuple[str, str]) -> str | None:
    """Of the grid mapping that holds for the dimensions of `plane`."""
    written = values.attrs.get("grid_mapping") or values.encoding.get("grid_mapping")
    if not written:
        found = [str(name) for name, v in opened.variables.items() if _is_mapping(v)]
        return found[0] if len(found) == 1 else None
    names: dict[str, list[str]] = {}  # "crs: x y other: lat lon", or one name alone
    for word in str(written).split():
        if word.endswith(":") or not names:
            names[last := word.rstrip(":")] = []
        else:
            names[last].append(word)
    chosen = next((n for n, axes in names.items() if set(plane) <= set(axes)), next(iter(names)))
    return chosen if chosen in opened.variables else None


def _is_mapping(variable: xr.Variable) -> bool:
    known = ("grid_mapping_name", "crs_wkt", "spatial_ref")
    return variable.ndim == 0 and any(key in variable.attrs for key in known)


def _as_pyproj_reads_it(attributes: dict[str, Any]) -> dict[str, Any]:
    """CF attributes with what pyproj would overlook in other words, or as text."""
    attributes = {key: _number(value) for key, value in attributes.items()}
    origin = attributes.get("latitude_of_projection_origin")
    parallels = attributes.get("standard_parallel")
    lambert = attributes.get("grid_mapping_name") == "lambert_conformal_conic"
    if not lambert or origin is None or parallels is None or isinstance(parallels, str):
        return attributes
    known = np.atleast_1d(np.asarray(parallels, np.float64)).tolist()
    # One parallel and the origin elsewhere: as two parallels that are the same.
    return {**attributes, "standard_parallel": known * 2 if len(known) == 1 else known}


def _number(value: Any) -> Any:
    """A number that was written as text; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
