"""National and polar grids beyond the usual maps, as MetPy, Iris, rioxarray and GDAL place them."""

# ruff: noqa: E402

from __future__ import annotations

from pathlib import Path

import pytest

for library in ("netCDF4", "pyproj", "rasterio", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)

from stpl_runtime.sinks.geotiff import geotiff_bytes
from stpl_runtime.sinks.netcdf import netcdf_bytes
from tests.core.readers.maps import Map
from tests.runtime.sinks.test_places import READERS, by_gdal, grid_on, nowcast_on, off_by

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools that read

MAPS = {
    "Swiss LV95": Map("EPSG:2056", 8.0, 47.0),
    "Dutch RD New": Map("EPSG:28992", 5.4, 52.2),
    "Czech Krovak": Map("EPSG:5514", 15.0, 50.0),
    "EASE-Grid 2 north": Map("EPSG:6931", 20.0, 70.0),
    "NSIDC north": Map("EPSG:3413", -45.0, 75.0),
    "Antarctic": Map("EPSG:3031", 0.0, -75.0),
    "Gauss-Krueger": Map("EPSG:31467", 9.0, 48.0),
    "Lambert, south": Map("+proj=lcc +lat_1=-32 +lat_2=-24 +lat_0=-28 +lon_0=24", 24.0, -29.0),
    "Lambert at the date line": Map(
        "+proj=lcc +lat_1=50 +lat_2=60 +lat_0=55 +lon_0=180 +R=6371229", 179.95, 55.0
    ),
}
NO_CF = ("Swiss LV95", "Dutch RD New", "Czech Krovak")
"""Projections that CF has no name for: those who read attributes alone must not place them."""


@pytest.mark.parametrize("name", MAPS)
def test_nowcasts_lie_where_they_should(tmp_path: Path, name: str) -> None:
    grid = grid_on(MAPS[name])
    made, picture = tmp_path / "nowcast.nc", tmp_path / "nowcast.tif"
    made.write_bytes(netcdf_bytes(nowcast_on(grid)))
    picture.write_bytes(geotiff_bytes(nowcast_on(grid)))
    assert off_by(grid, *by_gdal(picture)) < 0.01
    for reader, place in READERS.items():
        if name in NO_CF and reader in ("Iris", "CF attributes"):
            with pytest.raises(Exception, match=r"coordinate|grid_mapping_name"):
                place(made)
        else:
            assert off_by(grid, *place(made)) < 0.01, reader
