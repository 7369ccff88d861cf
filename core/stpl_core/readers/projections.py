"""Coordinate reference systems, by pyproj."""

from __future__ import annotations

import re
from typing import Any

from stpl_core.errors import FrameError
from stpl_core.readers.libraries import reads_with

_FILES = re.compile(
    r"grids\s*=(?!\s*@null(?![^\s\"\]]))|init\s*=(?!\s*(epsg|esri):)|file\s*="
    r"|PARAMETERFILE|INTERPOLATIONCRS|proj\s*=\s*(pipeline|xyzgridshift)",
    re.IGNORECASE,
)
"""`nadgrids=@null` names none: GDAL writes it into every web Mercator."""
_MOST_TEXT = 20_000


def crs_of(definition: Any, where: str) -> Any:
    """A `pyproj.CRS` from a PROJ string, WKT, an EPSG code or CF attributes.

    Raises:
        FrameError: it is none of these; `where` is the file.
    """
    with reads_with("frames"):
        import pyproj
        from pyproj.exceptions import CRSError
    if _names_files(definition):
        raise FrameError(
            f"{where} has a projection that names other files",
            expected="a projection that stands for itself",
            fix="write it without grids, +init and BOUNDCRS",
        )
    try:
        if isinstance(definition, dict):
            return pyproj.CRS.from_cf(definition)
        return pyproj.CRS.from_user_input(definition)
    except (CRSError, KeyError) as error:
        raise FrameError(
            f"{where} has a projection that is not understood: {definition}",
            expected="a PROJ string, WKT or CF grid mapping",
            fix="check how the file was written",
        ) from error


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
