"""Which grids are alike enough for a model, and what is said where they are not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stpl_core.errors import FrameError
from stpl_core.grid import Grid, pixel_grid
from stpl_core.same_grid import check_same_grid, grid_text, pixel_m

pyproj = pytest.importorskip("pyproj")

FINLAND = Grid((0.0, 1e6, 1000.0, -1000.0), 100, 100, pyproj.CRS.from_epsg(3067).to_wkt())
DUTCH = replace(FINLAND, crs_wkt=pyproj.CRS.from_epsg(28992).to_wkt())
DEGREES = Grid((20.0, 61.0, 0.02, -0.01), 200, 100, pyproj.CRS.from_epsg(4326).to_wkt(), True)


def test_the_same_pixels_at_another_place_are_fine() -> None:
    elsewhere = replace(FINLAND, affine=(5e5, 2e6, 1000.0, -1000.0), height=40, width=80)
    assert check_same_grid(elsewhere, [FINLAND], "x") == ""
    spelt = replace(FINLAND, crs_wkt=pyproj.CRS.from_epsg(3067).to_wkt("WKT1_GDAL"))
    assert check_same_grid(spelt, [FINLAND], "x") == ""
    nearly = replace(FINLAND, affine=(0.0, 1e6, 1080.0, -930.0))
    assert check_same_grid(nearly, [FINLAND], "x") == ""


def test_another_projection_is_reported() -> None:
    remark = check_same_grid(DUTCH, [FINLAND], "nl.zarr", crop=[0, 0, 8, 8])
    assert remark == (
        "nl.zarr is in another projection (Amersfoort / RD New) than the training "
        "(ETRS89 / TM35FIN(E,N)), with pixels of the same size; its crop [0, 0, 8, 8] is cut out "
        "of larger frames here too"
    )
    assert check_same_grid(DUTCH, [FINLAND, DUTCH], "nl.zarr") == ""


@pytest.mark.parametrize(
    "affine", [(0, 1e6, 2000, -2000), (0, 1e6, 1000, -500), (0, 1e6, 880, -1e3)]
)
def test_other_pixels_are_refused_unless_wanted(affine: tuple[float, ...]) -> None:
    other = replace(FINLAND, affine=affine)
    with pytest.raises(FrameError, match=r"x has pixels of .*expected 1 x 1 km.*--any-grid"):
        check_same_grid(other, [FINLAND], "x")
    assert "trained on 1 x 1 km" in check_same_grid(other, [FINLAND], "x", any_grid=True)


def test_degrees_are_not_metres() -> None:
    width, height = pixel_m(DEGREES)
    assert (width, height) == pytest.approx((1112, 1112), rel=0.01)  # at 60 degrees north
    with pytest.raises(FrameError, match=r"0.02 x 0.01 degrees \(1.11 x 1.11 km\)"):
        check_same_grid(DEGREES, [FINLAND], "x")
    assert check_same_grid(DEGREES, [DEGREES], "x") == ""
    south = replace(DEGREES, affine=(20.0, 1.0, 0.02, -0.01))
    with pytest.raises(FrameError, match=r"2.22 x 1.11 km"):
        check_same_grid(south, [DEGREES], "x")


def test_what_is_nowhere_fits_everything() -> None:
    assert check_same_grid(pixel_grid(8, 8), [FINLAND], "x") == ""
    assert check_same_grid(FINLAND, [], "x") == ""
    assert check_same_grid(FINLAND, [pixel_grid(8, 8)], "x") == ""
    assert grid_text(FINLAND) == "pixels of 1 x 1 km, ETRS89 / TM35FIN(E,N)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("+lat_ts=60 +lon_0=0 +ellps=WGS84", "Longitude of origin 10) than the training"),
        ("+lat_ts=70 +lon_0=10 +ellps=WGS84", "(Polar Stereographic (variant B), Latitude of s"),
        ("+lat_ts=60 +lon_0=10 +R=6371000", "WGS 84) than the training"),
    ],
)
def test_projections_of_one_name_are_distinguished(text: str, words: str) -> None:
    base = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +ellps=WGS84 +no_defs"
    here = replace(FINLAND, crs_wkt=pyproj.CRS(base).to_wkt())
    there = replace(FINLAND, crs_wkt=pyproj.CRS(f"+proj=stere +lat_0=90 {text} +no_defs").to_wkt())
    remark = check_same_grid(here, [there], "x")
    assert words in remark
    first, _, second = remark.partition(" than the training ")
    assert first.rpartition("projection ")[2] != second.partition(", with")[0]
