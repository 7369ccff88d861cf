"""What is written lies where it should for those who read it: MetPy, Iris, rioxarray, GDAL."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("netCDF4", "pyproj", "rasterio", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from hypothesis import given, settings

from stpl_core.errors import SinkError
from stpl_core.grid import Grid
from stpl_core.readers.placing import placed
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sinks.geotiff import geotiff_bytes
from stpl_runtime.sinks.netcdf import netcdf_bytes
from tests.core.readers.maps import MAPS, Map
from tests.core.readers.placed_files import netcdfs, read_netcdf, to_lon_lat, write_netcdf, xy
from tests.core.readers.soaks import calm

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools that read
SIZE = 24
ROW, COLUMN = 5, 17
START = datetime(2024, 6, 1, 12, tzinfo=timezone.utc)


def grid_on(place: Map) -> Grid:
    """Of 1 km or 0.01 degrees, the middle of the map in its middle."""
    x, y = place.middle()
    unit = place.crs.axis_info[0].unit_conversion_factor
    step = 0.01 if place.degrees else 1000.0 / unit
    left, top = x - step * SIZE / 2, y + step * SIZE / 2
    return placed((left, top, step, -step), SIZE, SIZE, place.crs)[0]


def nowcast_on(grid: Grid) -> Nowcast:
    frames = np.zeros((2, 1, SIZE, SIZE), np.float32)
    frames[:, :, ROW, COLUMN] = 5.0
    return Nowcast(
        frames=frames,
        context=frames[:1],
        units="mm h-1",
        quantity="rain rate",
        low=0.0,
        high=10.0,
        issue_time=START,
        cadence_s=300.0,
        grid=grid,
        standard_name="rainfall_rate",
    )


def off_by(grid: Grid, lon: float, lat: float, base: pyproj.CRS | None = None) -> float:
    """Pixels from the middle of the wet one to a place that a tool gives it."""
    crs = pyproj.CRS(grid.crs_wkt)
    onto = pyproj.Transformer.from_crs(base or crs.geodetic_crs, crs, always_xy=True)
    x, y = onto.transform(lon, lat)
    return float(
        max(abs(x - grid.x[COLUMN]) / grid.affine[2], abs(y - grid.y[ROW]) / -grid.affine[3])
    )


def by_metpy(path: Path) -> tuple[float, float]:
    pytest.importorskip("metpy.xarray")
    import xarray as xr

    with xr.open_dataset(path) as opened:
        field = opened.metpy.parse_cf("nowcast").metpy.assign_latitude_longitude(force=True)
        row, column = wet(field[0].values)
        return float(field.longitude[row, column]), float(field.latitude[row, column])


def by_iris(path: Path) -> tuple[float, float]:
    iris = pytest.importorskip("iris")
    cube = iris.load_cube(str(path), "rainfall_rate")
    row, column = wet(np.asarray(cube.data[0]))
    y, x = (cube.coord(axis=axis, dim_coords=True) for axis in "yx")
    assert y.coord_system is not None
    system = y.coord_system.as_cartopy_crs()
    height = getattr(y.coord_system, "perspective_point_height", 1.0)
    scale = height if str(y.units) in ("rad", "radian") else 1.0
    east, north = float(x.points[column]) * scale, float(y.points[row]) * scale
    if type(y.coord_system).__name__ == "GeogCS":
        return east, north
    lon, lat = system.as_geodetic().transform_point(east, north, system)
    return float(lon), float(lat)


def by_rioxarray(path: Path) -> tuple[float, float]:
    import xarray as xr

    rioxarray = pytest.importorskip("rioxarray")
    with xr.open_dataset(path, decode_coords="all") as opened:
        if opened["x"].attrs["units"] != "rad":
            return lies_at(opened["nowcast"])
    with rioxarray.open_rasterio(path) as field:  # which makes metres of the angles of a scan
        return lies_at(field)


def lies_at(field: Any) -> tuple[float, float]:
    row, column = wet(field[0].values)
    x, y = field.rio.transform() * (column + 0.5, row + 0.5)
    return on_the_earth(field.rio.crs.to_wkt(), x, y)


def by_gdal(path: Path) -> tuple[float, float]:
    name = f"netcdf:{path}:nowcast" if path.suffix == ".nc" else str(path)
    with rasterio.open(name) as file:
        row, column = wet(file.read(1))
        x, y = file.transform * (column + 0.5, row + 0.5)
        return on_the_earth(file.crs.to_wkt(), x, y)


def by_cf_attributes(path: Path) -> tuple[float, float]:
    """By pyproj, from the attributes without the WKT and from the coordinates as they stand."""
    import xarray as xr

    with xr.open_dataset(path) as opened:
        row, column = wet(opened["nowcast"][0].values)
        attributes = opened["crs"].attrs
        x, y = float(opened["x"][column]), float(opened["y"][row])
        if opened["x"].attrs["units"] == "rad":
            x, y = (v * attributes["perspective_point_height"] for v in (x, y))
    left_out = ("crs_wkt", "spatial_ref", "GeoTransform")
    crs = pyproj.CRS.from_cf({k: v for k, v in attributes.items() if k not in left_out})
    return on_the_earth(crs.to_wkt(), x, y)


def on_the_earth(wkt: str, x: float, y: float) -> tuple[float, float]:
    crs = pyproj.CRS(wkt)
    lon, lat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    return float(lon), float(lat)


def wet(field: Any) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.nanargmax(field)), field.shape)
    return int(row), int(column)


READERS: dict[str, Callable[[Path], tuple[float, float]]] = {
    "MetPy": by_metpy,
    "Iris": by_iris,
    "rioxarray": by_rioxarray,
    "GDAL": by_gdal,
    "CF attributes": by_cf_attributes,
}


UNKNOWN = {
    "Iris": (
        "azimuthal equidistant",
        "sinusoidal",
        "geostationary, sweep x",
        "geostationary, sweep y",
    ),
    "MetPy": ("rotated pole",),
}
"""Projections, or their coordinates of CF 1.9 and later, that a tool does not know."""


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", MAPS)
def test_a_nowcast_as_netcdf_lies_where_it_should(tmp_path: Path, name: str, reader: str) -> None:
    if name in UNKNOWN.get(reader, ()):
        pytest.skip(f"{reader} does not know it")
    grid = grid_on(MAPS[name])
    path = tmp_path / "nowcast.nc"
    path.write_bytes(netcdf_bytes(nowcast_on(grid)))
    assert off_by(grid, *READERS[reader](path)) < 0.01


@pytest.mark.parametrize("name", MAPS)
def test_a_nowcast_as_geotiff_lies_where_it_should(tmp_path: Path, name: str) -> None:
    grid = grid_on(MAPS[name])
    if name == "rotated pole":  # without its projection its degrees would be taken for others
        with pytest.raises(SinkError, match="cannot hold the projection"):
            geotiff_bytes(nowcast_on(grid))
        return
    path = tmp_path / "nowcast.tif"
    path.write_bytes(geotiff_bytes(nowcast_on(grid)))
    assert off_by(grid, *by_gdal(path)) < 0.01


@pytest.mark.parametrize("name", MAPS)
def test_a_checker_of_cf_finds_nothing_wrong(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = pytest.importorskip("compliance_checker.runner")
    path = tmp_path / "nowcast.nc"
    path.write_bytes(netcdf_bytes(nowcast_on(grid_on(MAPS[name]))))
    suite = runner.CheckSuite()
    suite.load_all_available_checkers()
    dataset = suite.load_dataset(str(path))
    try:
        (results, _errors) = suite.run_all(dataset, ["cf:1.11"])["cf:1.11"]
    finally:
        dataset.close()
    wrong = [
        (result.name, text)
        for result in results
        if result.weight == 3 and not passed(result.value)
        for text in result.msgs or []
        if not ITS_OWN.match(text)
    ]
    assert not wrong


ITS_OWN = re.compile(r"(. is a required attribute|grid mapping geostationary requires)")
"""Faults of the checker (6.1): it takes a name for its letters; and it asks for the names that the
angles had before CF 1.9, to find their units wrong then."""


def passed(value: Any) -> bool:
    return value[0] == value[1] if isinstance(value, tuple) else bool(value)


def check_way_through(facts: dict[str, Any]) -> None:
    """From a NetCDF file over our grid into ours, which GDAL reads."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "rain.nc", Path(folder) / "nowcast.nc"
        values, lon, lat = write_netcdf(source, facts)
        grid = read_netcdf(source).grid
        nowcast = replace(nowcast_on(grid), frames=values[None, None])
        target.write_bytes(netcdf_bytes(nowcast))
        with rasterio.open(f"netcdf:{target}:nowcast") as file:
            np.testing.assert_array_equal(file.read(1), values)
            rows, columns = np.mgrid[: file.height, : file.width]
            found = to_lon_lat(file.crs.to_wkt(), *xy(file.transform, rows, columns))
    crs = pyproj.CRS(grid.crs_wkt)
    onto = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    for ours, theirs in zip(onto.transform(lon, lat), onto.transform(*found), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.01 * grid.affine[2])


@settings(calm, max_examples=100)
@given(netcdfs())
def test_what_is_read_is_written_to_the_same_place(facts: dict[str, Any]) -> None:
    check_way_through(facts)


@pytest.mark.soak
@settings(calm, max_examples=4_000)
@given(netcdfs())
def test_four_thousand_ways_through(facts: dict[str, Any]) -> None:
    check_way_through(facts)
