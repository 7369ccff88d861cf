"""Row 0 is the north and column 0 the west, at the right place, whatever the file does."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("netCDF4", "pyproj", "rasterio", "xarray"):  # an edge device has none of them
    pytest.importorskip(library)


import tempfile
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.errors import FrameError
from stpl_core.reader import NO_DATA, ReadOptions
from stpl_core.readers import geotiff
from stpl_core.readers.placing import western
from tests.core.readers.placed_files import (
    lon_lat,
    netcdfs,
    read_netcdf,
    tiffs,
    to_lon_lat,
    write_netcdf,
    write_tiff,
    xy,
)
from tests.core.readers.soaks import calm, soak


def check_tiff(facts: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rain_202406011200.tif"
        write_tiff(path, facts)
        (piece,) = geotiff.read(path, ReadOptions())
        with rasterio.open(path) as file:
            theirs = file.read(1).astype(np.float64) * facts["scale"] + facts["offset"]
            seen = file.dataset_mask() > 0
            columns, rows = np.meshgrid(np.arange(file.width), np.arange(file.height))
            x, y = xy(file.transform, rows, columns)
            wkt = file.crs.to_wkt()
    assert piece.grid.affine[2] > 0 > piece.grid.affine[3]
    theirs = np.where(seen, theirs, np.nan)
    order = np.s_[:: -1 if facts["south_up"] else 1, :: -1 if facts["east_first"] else 1]
    np.testing.assert_allclose(piece.frames[0, 0], theirs[order], rtol=1e-6)
    assert ((piece.state[0] == NO_DATA) == ~seen[order]).all()
    for ours, found in zip(lon_lat(piece.grid), to_lon_lat(wkt, x, y), strict=True):
        np.testing.assert_allclose(ours, found[order], atol=1e-6)


@settings(calm, max_examples=500)
@given(tiffs())
def test_geotiff_is_read_as_rasterio_reads_it(facts: dict[str, Any]) -> None:
    check_tiff(facts)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@settings(soak)
@given(tiffs())
def test_many_geotiffs(facts: dict[str, Any]) -> None:
    check_tiff(facts)


def check_netcdf(facts: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rain.nc"
        values, lon, lat = write_netcdf(path, facts)
        piece = read_netcdf(path)
    assert piece.grid.affine[2] > 0 > piece.grid.affine[3]
    np.testing.assert_array_equal(piece.frames[0, 0], values)
    found_lon, found_lat = lon_lat(piece.grid)
    np.testing.assert_allclose(found_lon, lon, atol=1e-6)
    np.testing.assert_allclose(found_lat, lat, atol=1e-6)


@settings(calm, max_examples=150)
@given(netcdfs())
def test_netcdf_lies_where_pyproj_puts_it(facts: dict[str, Any]) -> None:
    check_netcdf(facts)


@pytest.mark.soak
@pytest.mark.timeout(14_400)
@settings(soak)
@given(netcdfs())
def test_many_netcdf_files(facts: dict[str, Any]) -> None:
    check_netcdf(facts)


@given(st.floats(-720, 720), st.floats(0.01, 360))
def test_the_west_is_named_once(left: float, span: float) -> None:
    turned = western(left, span)
    assert (turned - left) % 360 == pytest.approx(0, abs=1e-9) or (
        (turned - left) % 360 == pytest.approx(360, abs=1e-9)
    )
    assert -181 <= turned <= 180


def test_a_unit_that_is_none_is_named(tmp_path: Path) -> None:
    facts = {
        "map": "UTM",
        "shape": (4, 4),
        "south_up": False,
        "east_first": False,
        "x_first": False,
        "unit": "m",
        "wkt": True,
        "turns": 0,
        "seed": 0,
    }
    path = tmp_path / "rain.nc"
    write_netcdf(path, facts)
    with netCDF4.Dataset(path, "a") as file:
        file["x"].units = "furlongs"
    with pytest.raises(FrameError, match="x in furlongs"):
        read_netcdf(path)
