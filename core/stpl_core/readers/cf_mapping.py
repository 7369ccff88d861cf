"""The CF grid mapping of a reference system, whole: every attribute that CF's appendix F asks for.

Readers differ in what they look at: GDAL and rioxarray take the WKT and the GeoTransform, MetPy and
Iris the CF attributes alone. Both have to place a pixel at the same point.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

_NEAR_M = 0.01
"""CF attributes that move a point by more than so much say another projection."""

_LENGTHS = {
    "False easting": "false_easting",
    "False northing": "false_northing",
    "Easting at false origin": "false_easting",
    "Northing at false origin": "false_northing",
}

Attributes = dict[str, Any]


def cf_grid_mapping(crs: Any) -> Attributes:
    """CF attributes and `crs_wkt` of a `pyproj.CRS` in metres or degrees.

    A projection that CF has no name for, such as the equidistant cylindrical, has the WKT and its
    ellipsoid alone: attributes that come near it would be read as if they were it.
    """
    found = _by_pyproj(crs)
    found.update(_completed(found, crs))
    if found.get("scale_factor_at_projection_origin") is not None:
        found.pop("standard_parallel", None)  # CF: one of the two
    if not _says_the_same(found, crs):
        kept = ("crs_wkt", "semi_major_axis", "semi_minor_axis", "inverse_flattening")
        found = {key: value for key, value in found.items() if key in kept}
    return found


def _by_pyproj(crs: Any) -> Attributes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "lost in conversion": looked for later
        try:
            made = crs.to_cf()
        except KeyError:  # pyproj 3.7 and a vertical perspective
            made = {**crs.geodetic_crs.to_cf(), "crs_wkt": crs.to_wkt(), "grid_mapping_name": None}
    return {key: value for key, value in made.items() if value is not None}


def geostationary_height(crs: Any) -> float | None:
    """Metres from the ellipsoid up to the satellite; None for every other projection."""
    operation = crs.coordinate_operation
    if operation is None or not operation.method_name.startswith("Geostationary Satellite"):
        return None
    heights = [p for p in operation.params if p.name.lower() == "satellite height"]
    return float(heights[0].value) if heights else None


def _completed(found: Attributes, crs: Any) -> Attributes:
    """What pyproj leaves out, or in another unit."""
    method = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    parameters = _parameters(crs)
    lengths = {
        _LENGTHS[name]: value for name, value in parameters.items() if _LENGTHS.get(name) in found
    }
    return {**lengths, **_of_method(method, found, parameters, crs)}


def _of_method(
    method: str, found: Attributes, parameters: dict[str, float], crs: Any
) -> Attributes:
    if method == "Polar Stereographic (variant B)":
        return {"latitude_of_projection_origin": math.copysign(90.0, found["standard_parallel"])}
    if method == "Lambert Conic Conformal (1SP)":
        return _lambert_1sp(parameters, crs)
    if method == "Popular Visualisation Pseudo Mercator":
        return _web_mercator(parameters, crs)
    return {}


def _parameters(crs: Any) -> dict[str, float]:
    """By name; angles in degrees, lengths in metres."""
    if crs.coordinate_operation is None:
        return {}
    return {
        p.name: float(p.value) * _in_degrees_or_metres(p) for p in crs.coordinate_operation.params
    }


def _in_degrees_or_metres(parameter: Any) -> float:
    factor = float(parameter.unit_conversion_factor or 1.0)
    angle = "degree" in parameter.unit_name or "grad" in parameter.unit_name
    return factor / math.radians(1.0) if angle or parameter.unit_name == "radian" else factor


def _lambert_1sp(parameters: dict[str, float], crs: Any) -> Attributes:
    """With the origin; a scale below 1 there becomes two parallels on which it is 1."""
    origin = parameters["Latitude of natural origin"]
    made: Attributes = {"latitude_of_projection_origin": origin}
    scale = parameters["Scale factor at natural origin"]
    if scale < 1.0 - 1e-12:
        flattening = crs.ellipsoid.inverse_flattening
        eccentricity = math.sqrt((2.0 - 1.0 / flattening) / flattening) if flattening else 0.0
        made["standard_parallel"] = tuple(
            _parallel_of_scale_1(origin, scale, eccentricity, limit)
            for limit in (max(origin - 40.0, -89.0), min(origin + 40.0, 89.0))
        )
    return made


def _parallel_of_scale_1(origin: float, scale: float, eccentricity: float, limit: float) -> float:
    """Between the origin, where the scale is below 1, and a latitude where it is above."""

    def logarithm(latitude: float) -> float:
        sine = math.sin(math.radians(latitude))
        turn = eccentricity * sine
        radius = math.log(math.cos(math.radians(latitude))) - 0.5 * math.log1p(-turn * turn)
        height = math.atanh(sine) - eccentricity * math.atanh(turn)
        return -math.sin(math.radians(origin)) * height - radius

    low, high = origin, limit
    for _ in range(200):
        middle = (low + high) / 2
        if logarithm(middle) - logarithm(origin) + math.log(scale) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _web_mercator(parameters: dict[str, float], crs: Any) -> Attributes:
    """A Mercator of the sphere with the ellipsoid's greater radius: the same numbers."""
    radius = crs.ellipsoid.semi_major_metre
    return {
        "grid_mapping_name": "mercator",
        "standard_parallel": 0.0,
        "longitude_of_projection_origin": parameters["Longitude of natural origin"],
        "false_easting": parameters["False easting"],
        "false_northing": parameters["False northing"],
        "semi_major_axis": radius,
        "semi_minor_axis": radius,
        "inverse_flattening": 0.0,
    }


def _says_the_same(found: Attributes, crs: Any) -> bool:
    """Whether the attributes without the WKT place points as the reference system does."""
    if "grid_mapping_name" not in found:
        return False
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    try:
        alone = CRS.from_cf({key: value for key, value in found.items() if key != "crs_wkt"})
        if crs.is_geographic:
            return bool(alone.is_geographic)
        lon, lat = _somewhere(crs)
        ours, theirs = (
            Transformer.from_crs(one.geodetic_crs, one, always_xy=True).transform(lon, lat)
            for one in (crs, alone)
        )
    except (CRSError, KeyError):
        return False
    return all(
        abs(one - other) < _NEAR_M
        for ours_1, theirs_1 in zip(ours, theirs, strict=True)
        for one, other in zip(ours_1, theirs_1, strict=True)
    )


def _somewhere(crs: Any) -> tuple[list[float], list[float]]:
    """Some places about the middle of the projection."""
    from pyproj import Transformer

    origin = {_LENGTHS[name]: v for name, v in _parameters(crs).items() if name in _LENGTHS}
    x, y = (origin.get(f"false_{way}", 0.0) for way in ("easting", "northing"))
    away = 100_000.0
    back = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    lon, lat = back.transform(
        [x + away, x - away, x + 3 * away], [y + away, y + 2 * away, y - away]
    )
    return list(lon), list(lat)
