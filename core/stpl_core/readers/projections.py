"""Coordinate reference systems, by pyproj."""

from __future__ import annotations

import re
from typing import Any

from stpl_core.errors import FrameError
from stpl_core.readers.cf_mapping import geostationary_height
from stpl_core.readers.libraries import reads_with

_FILES = re.compile(
    r"grids\s*=(?!\s*@null(?![^\s\"\]]))|init\s*=(?!\s*(epsg|esri):)|file\s*="
    r"|PARAMETERFILE|INTERPOLATIONCRS|proj\s*=\s*(pipeline|xyzgridshift)",
    re.IGNORECASE,
)
"""`nadgrids=@null` names none: GDAL writes it into every web Mercator."""
_MOST_TEXT = 20_000
_LEAST_RADIUS_M = 1e5
"""Of a body that is measured in metres: the Earth's in kilometres is less."""
_HEIGHTS_M = (3.3e7, 3.9e7)
"""Of a geostationary satellite above the ground: in kilometres, or from the Earth's centre, it is
another number."""


def crs_of(definition: Any, where: str) -> Any:
    """A `pyproj.CRS` from a PROJ string, WKT, an EPSG code or CF attributes.

    Raises:
        FrameError: it is none of these; `where` is the file.
    """
    with reads_with("frames"):
        import pyproj
        from pyproj.exceptions import CRSError
    if isinstance(definition, str) and "proj=" in definition:
        definition = _radii_in_metres(definition)
    if _names_files(definition):
        raise FrameError(
            f"{where} has a projection that names other files",
            expected="a projection that stands for itself",
            fix="write it without grids, +init and BOUNDCRS",
        )
    try:
        if isinstance(definition, dict):
            found = pyproj.CRS.from_cf(definition)
        else:
            found = pyproj.CRS.from_user_input(definition)
    except (CRSError, KeyError) as error:
        raise FrameError(
            f"{where} has a projection that is not understood: {definition}",
            expected="a PROJ string, WKT or CF grid mapping",
            fix="check how the file was written",
        ) from error
    _check_metres(found, where)
    return found


def _radii_in_metres(text: str) -> str:
    """A PROJ string whose lengths are in kilometres, as radar services write it, as PROJ reads it.

    Then its plane is in kilometres too, unless it says otherwise.
    """
    parts = [part.lstrip("+").partition("=") for part in text.split()]
    if not any(key in ("a", "R") and _is_small(value) for key, _, value in parts):
        return text
    known = {key for key, _, _ in parts}
    lengths = ("a", "b", "R", "h", "x_0", "y_0")
    kept = [
        (key, f"{float(value) * 1000:.12g}" if key in lengths else value) for key, _, value in parts
    ]
    if not known & {"units", "to_meter"}:
        kept.append(("units", "km"))
    return " ".join(f"+{key}={value}" if value else f"+{key}" for key, value in kept)


def _is_small(value: str) -> bool:
    try:
        return 0 < float(value) < _LEAST_RADIUS_M
    except ValueError:
        return False


def _check_metres(crs: Any, where: str) -> None:
    """Refuse an Earth, or a height above it, of another size than in metres."""
    radius = crs.ellipsoid.semi_major_metre if crs.ellipsoid else None
    height = geostationary_height(crs)
    if radius is not None and radius < _LEAST_RADIUS_M:
        wrong = f"of an Earth with a radius of {radius:g} m"
    elif height is not None and not _HEIGHTS_M[0] < height < _HEIGHTS_M[1]:
        wrong = f"of a geostationary satellite {height:g} m above the ground"
    else:
        return
    raise FrameError(
        f"{where} has a projection {wrong}",
        expected="metres, and heights from the ground: 6371000 or so, 35786023 or so",
        fix="write these lengths in metres: ncatted of a NetCDF file, gdal_edit.py of a GeoTIFF",
    )


def _names_files(definition: Any) -> bool:
    """Whether PROJ would open files that the definition names."""
    texts = definition.values() if isinstance(definition, dict) else [definition]
    return any(
        isinstance(text, (str, bytes)) and (len(text) > _MOST_TEXT or _FILES.search(str(text)))
        for text in texts
    )


def wkt_of(definition: Any, where: str) -> str:
    """WKT 2 of a projection; see `crs_of`."""
    return str(crs_of(definition, where).to_wkt())


def lon_lat_wkt() -> str:
    """WKT 2 of plain longitude and latitude (WGS 84)."""
    return wkt_of("OGC:CRS84", "")


def project(definition: str, lon: float, lat: float, where: str) -> tuple[float, float]:
    """Project degrees to the plane of `definition`.

    Raises:
        FrameError: the point has no place in the projection, or `definition` is none.
    """
    with reads_with("frames"):
        import pyproj
    crs = crs_of(definition, where)
    base = crs.geodetic_crs  # the same ellipsoid, so that no datum shift enters
    x, y = pyproj.Transformer.from_crs(base, crs, always_xy=True).transform(lon, lat)
    if not (abs(x) < 1e9 and abs(y) < 1e9):
        raise FrameError(
            f"{where} has a corner at longitude {lon:g}, latitude {lat:g}",
            expected=f"a point of the projection {definition}",
            fix="check how the file was written",
        )
    return float(x), float(y)
