"""GeoTIFF and NetCDF files that lie anywhere on the Earth and run any way, for hypothesis."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pyproj
import rasterio
from hypothesis import strategies as st

from stpl_core.grid import Grid
from stpl_core.reader import Piece, ReadOptions
from stpl_core.readers import cf
from stpl_core.readers.placing import in_plain_units
from tests.core.readers.maps import MAPS, Map

flags = st.booleans()
sizes = st.integers(2, 9)


@st.composite
def tiffs(draw: st.DrawFn) -> dict[str, Any]:
    """What a GeoTIFF may be like."""
    return {
        "map": draw(st.sampled_from([name for name in MAPS if name != "rotated pole"])),
        "shape": (draw(sizes), draw(sizes)),
        "south_up": draw(flags),
        "east_first": draw(flags),
        "dtype": draw(st.sampled_from(["uint8", "int16", "int32", "float32", "float64"])),
        "mask": draw(st.sampled_from(["", "nodata", "mask", "alpha"])),
        "scale": draw(st.sampled_from([1.0, 0.1, 0.5, 2.0])),
        "offset": draw(st.sampled_from([0.0, -32.0, 1.5])),
        "tiled": draw(flags),
        "seed": draw(st.integers(0, 999)),
    }


def write_tiff(path: Path, facts: dict[str, Any]) -> None:
    place: Map = MAPS[facts["map"]]
    height, width = facts["shape"]
    random = np.random.default_rng(facts["seed"])
    values = random.integers(0, 200, (height, width)).astype(facts["dtype"])
    lost = random.random((height, width)) < 0.3
    step = 0.01 if place.degrees else 1000.0 / place.crs.axis_info[0].unit_conversion_factor
    x, y = place.middle()
    step_x, step_y = (
        step * (-1 if facts["east_first"] else 1),
        step * (1 if facts["south_up"] else -1),
    )
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 2 if facts["mask"] == "alpha" else 1,
        "dtype": facts["dtype"],
        "crs": rasterio.crs.CRS.from_wkt(place.crs.to_wkt("WKT1_GDAL")),
        "transform": rasterio.Affine(step_x, 0, x, 0, step_y, y),
    }
    if facts["tiled"]:
        profile.update(tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    if facts["mask"] == "nodata":
        profile["nodata"] = 255 if facts["dtype"] == "uint8" else -9999
        values[lost] = profile["nodata"]
    if facts["mask"] == "alpha":
        profile.update(photometric="MINISBLACK", alpha="YES")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
        if facts["mask"] == "alpha":
            file.write(np.where(lost, 0, 255).astype(facts["dtype"]), 2)
        if facts["mask"] == "mask":
            file.write_mask(~lost)
        file.scales, file.offsets = (facts["scale"],) * file.count, (facts["offset"],) * file.count
        file.units = ("mm/h",) * file.count


def lon_lat(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel, `(H, W)`."""
    return to_lon_lat(grid.crs_wkt, *np.meshgrid(grid.x, grid.y))


def to_lon_lat(wkt: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    return _onto_the_earth(wkt).transform(x, y)


@lru_cache(maxsize=128)
def _onto_the_earth(wkt: str) -> pyproj.Transformer:
    crs = pyproj.CRS(wkt)
    return pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)


def xy(affine: Any, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middles of pixels."""
    a, b, c, d, e, f = affine[:6]
    x, y = columns + 0.5, rows + 0.5
    return a * x + b * y + c, d * x + e * y + f


UNITS = {"m": 1.0, "km": 1000.0, "1000 m": 1000.0, "feet": 0.3048}
ANGLES = {"rad": 1.0, "radian": 1.0, "microradian": 1e-6, "degrees": np.pi / 180}


@st.composite
def netcdfs(draw: st.DrawFn) -> dict[str, Any]:
    """What a NetCDF file may be like."""
    name = draw(st.sampled_from(list(MAPS)))
    units: list[str] = ["degrees"]
    if not MAPS[name].degrees:
        units = list(ANGLES if name.startswith("geostationary") and draw(flags) else UNITS)
    return {
        "map": name,
        "shape": (draw(sizes), draw(sizes)),
        "south_up": draw(flags),
        "east_first": draw(flags),
        "x_first": draw(flags),
        "unit": draw(st.sampled_from(units)),
        "wkt": draw(flags),
        "turns": draw(st.sampled_from([0, 0, 360, -360])),
        "seed": draw(st.integers(0, 999)),
    }


def write_netcdf(path: Path, facts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the values north up, and the longitude and latitude of each."""
    place: Map = MAPS[facts["map"]]
    height, width = facts["shape"]
    values = np.random.default_rng(facts["seed"]).random((height, width)).astype(np.float32)
    crs, unit = in_plain_units(place.crs)
    middle = [value * unit for value in place.middle()]
    step = 0.01 if place.degrees else 1000.0
    x, y = middle[0] + step * np.arange(width), middle[1] - step * np.arange(height)
    expected = values, *to_lon_lat(crs.to_wkt(), *np.meshgrid(x, y))
    attributes = mapping_attributes(crs, facts["wkt"])
    scale = UNITS.get(facts["unit"], 1.0)
    if facts["unit"] in ANGLES and not place.degrees:
        scale = ANGLES[facts["unit"]] * attributes["perspective_point_height"]
    x, y = x / scale, y / scale
    if place.degrees:
        x = x + facts["turns"]
    if facts["south_up"]:
        y, values = y[::-1], values[::-1]
    if facts["east_first"]:
        x, values = x[::-1], values[:, ::-1]
    with netCDF4.Dataset(path, "w") as file:
        names = axis_names(facts["map"], place)
        for dim, line, standard in zip("yx", (y, x), names, strict=True):
            file.createDimension(dim, len(line))
            variable = file.createVariable(dim, "f8", (dim,))
            variable[:] = line
            variable.setncatts({"standard_name": standard, "units": facts["unit"]})
        file.createDimension("time", 1)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time[:] = "seconds since 2024-06-01", [0.0]
        file.createVariable("mapping", "i4", ()).setncatts(attributes)
        dims = ("time", "x", "y") if facts["x_first"] else ("time", "y", "x")
        rain = file.createVariable("rain", "f4", dims)
        rain.setncatts({"units": "mm/h", "grid_mapping": "mapping"})
        rain[:] = (values.T if facts["x_first"] else values)[None]
    return expected


def mapping_attributes(crs: pyproj.CRS, wkt: bool) -> dict[str, Any]:
    """By pyproj, and with what it leaves out; or the WKT alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {key: value for key, value in crs.to_cf().items() if value is not None}
    text = crs.to_wkt()  # pyproj's false easting is in feet where the projection is
    if wkt or any(word in text for word in ("Pseudo", "1SP", "foot")):
        kept = ("crs_wkt", "perspective_point_height")
        return {key: value for key, value in made.items() if key in kept}
    made.pop("crs_wkt")
    if "scale_factor_at_projection_origin" in made:
        made.pop("standard_parallel", None)
    return made


def axis_names(name: str, place: Map) -> tuple[str, str]:
    if name == "rotated pole":
        return "grid_latitude", "grid_longitude"
    if place.degrees:
        return "latitude", "longitude"
    return "projection_y_coordinate", "projection_x_coordinate"


def read_netcdf(path: Path) -> Piece:
    (piece,) = cf.read(path, ReadOptions())
    return piece
