"""GRIB on projected grids, amounts, missing values: eccodes says where and what each point is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("xarray")
pytest.importorskip("pyproj")
if importlib.util.find_spec("eccodes") is None:
    pytest.skip("eccodes is not installed", allow_module_level=True)

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import NO_DATA, NO_ECHO, ReadOptions
from stpl_core.readers.converted import grid_of, quantity_of
from stpl_core.readers.opening import open_frames

MAKE = """
import json, sys, numpy, eccodes
out, wanted = sys.argv[1], json.loads(sys.argv[2])
values, places = numpy.arange(20.0), None
with open(out, "wb") as file:
    for facts in wanted:
        edition = facts.pop("edition", 2)
        message = eccodes.codes_grib_new_from_samples(f"regular_ll_sfc_grib{edition}")
        values = numpy.array(facts.pop("values", values))
        eccodes.codes_set(message, "gridType", facts.pop("gridType", "regular_ll"))
        facts = {"dataDate": 20240601, "dataTime": 1200, **facts}
        for key, value in facts.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set_values(message, values)
        eccodes.codes_write(message, file)
with open(out, "rb") as file:
    while (message := eccodes.codes_grib_new_from_file(file)) is not None:
        try:
            names = "latitudes", "longitudes"
            places = [eccodes.codes_get_array(message, name) for name in names]
        except eccodes.CodesInternalError as error:
            print(error)
if places is not None:
    numpy.savez(out + ".npz", lat=places[0], lon=places[1])
"""
METRES = {"Nx": 5, "Ny": 4, "DxInMetres": 2500.0, "DyInMetres": 2000.0}
FIRST = {"latitudeOfFirstGridPointInDegrees": 46.0, "longitudeOfFirstGridPointInDegrees": 7.5}
DEGREES = {
    "Ni": 5, "Nj": 4, "iDirectionIncrementInDegrees": 0.25, "jDirectionIncrementInDegrees": 0.25,
    "latitudeOfFirstGridPointInDegrees": 50.0, "latitudeOfLastGridPointInDegrees": 49.25,
    "longitudeOfFirstGridPointInDegrees": 350.0, "longitudeOfLastGridPointInDegrees": 351.0,
}  # fmt: skip
SPHERE = {
    "shapeOfTheEarth": 1,
    "scaleFactorOfRadiusOfSphericalEarth": 0,
    "scaledValueOfRadiusOfSphericalEarth": 6_370_040,
}
GRIDS: dict[str, dict[str, Any]] = {
    "lambert": {
        **METRES, **FIRST, "gridType": "lambert", "LaDInDegrees": 46.5, "LoVInDegrees": 10.0,
        "Latin1InDegrees": 45.0, "Latin2InDegrees": 48.0, "jScansPositively": 1,
    },
    "lambert of one parallel": {
        **METRES, **FIRST, **SPHERE, "gridType": "lambert", "LaDInDegrees": 39.0,
        "LoVInDegrees": 262.5, "Latin1InDegrees": 39.0, "Latin2InDegrees": 39.0,
        "longitudeOfFirstGridPointInDegrees": 250.0, "jScansPositively": 1,
    },
    "polar stereographic": {
        **METRES, **FIRST, "gridType": "polar_stereographic", "LaDInDegrees": 60.0,
        "orientationOfTheGridInDegrees": 10.0, "jScansPositively": 1,
    },
    "polar stereographic of the south": {
        **METRES, "gridType": "polar_stereographic", "LaDInDegrees": -71.0,
        "projectionCentreFlag": 128, "orientationOfTheGridInDegrees": 0.0, "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": -70.0, "longitudeOfFirstGridPointInDegrees": 100.0,
    },
    "mercator": {
        "gridType": "mercator", "Ni": 5, "Nj": 4, "DiInMetres": 2500.0, "DjInMetres": 2500.0,
        "LaDInDegrees": 20.0, "latitudeOfFirstGridPointInDegrees": 18.0,
        "longitudeOfFirstGridPointInDegrees": 230.0, "jScansPositively": 1,
        "latitudeOfLastGridPointInDegrees": 18.06795, "longitudeOfLastGridPointInDegrees": 230.0957,
    },
    "lambert azimuthal": {
        **METRES, **FIRST, "gridType": "lambert_azimuthal_equal_area",
        "standardParallelInDegrees": 55.0, "centralLongitudeInDegrees": -2.5, "jScansPositively": 1,
    },
    "lambert azimuthal, from the north": {
        **METRES, **FIRST, "gridType": "lambert_azimuthal_equal_area",
        "standardParallelInDegrees": 55.0, "centralLongitudeInDegrees": -2.5, "jScansPositively": 0,
    },
    "rotated": {
        **DEGREES, "gridType": "rotated_ll", "latitudeOfSouthernPoleInDegrees": -40.0,
        "longitudeOfSouthernPoleInDegrees": 10.0, "jScansPositively": 1,
        "latitudeOfFirstGridPointInDegrees": -5.0, "latitudeOfLastGridPointInDegrees": -4.25,
        "longitudeOfFirstGridPointInDegrees": 356.0, "longitudeOfLastGridPointInDegrees": 357.0,
    },
    "rotated, by columns, from the east": {
        **DEGREES, "gridType": "rotated_ll", "latitudeOfSouthernPoleInDegrees": -35.0,
        "longitudeOfSouthernPoleInDegrees": 335.0, "iScansNegatively": 1,
        "latitudeOfFirstGridPointInDegrees": 5.0, "latitudeOfLastGridPointInDegrees": 4.25,
        "longitudeOfFirstGridPointInDegrees": 8.0, "longitudeOfLastGridPointInDegrees": 7.0,
    },
}  # fmt: skip


def make(out: Path, *messages: dict[str, Any]) -> Path:
    """A file of messages, and beside it where eccodes puts the points of the last."""
    command = [sys.executable, "-c", MAKE, str(out), json.dumps(messages)]
    subprocess.run(command, check=True)
    return out


@pytest.mark.parametrize("name", GRIDS)
def test_a_projected_grid_lies_where_eccodes_says(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "a.grib2", GRIDS[name])
    opened = open_frames(path)
    grid = grid_of(opened)
    import pyproj

    crs = pyproj.CRS.from_wkt(grid.crs_wkt)
    base = crs.source_crs if grid.geographic else crs.geodetic_crs
    onto = pyproj.Transformer.from_crs(crs, base, always_xy=True)
    lon, lat = onto.transform(*np.meshgrid(grid.x, grid.y))
    with np.load(f"{path}.npz") as theirs:
        by_value = {
            round(value): place
            for value, place in zip(
                np.arange(20.0), zip(theirs["lat"], theirs["lon"], strict=True), strict=True
            )
        }
    pixel = grid.affine[2] if grid.geographic else grid.affine[2] / 111_000
    for row in range(4):
        for column in range(5):
            value = round(float(opened["frames"].values[0, 0, row, column]))
            expected_lat, expected_lon = by_value[value]
            assert lat[row, column] == pytest.approx(expected_lat, abs=0.01 * pixel)
            away = (lon[row, column] - expected_lon + 180) % 360 - 180
            assert away * np.cos(np.radians(expected_lat)) == pytest.approx(0, abs=0.01 * pixel)


@pytest.mark.parametrize("shape", [2, 4, 5, 6, 8])
@pytest.mark.parametrize("name", ["lambert", "polar stereographic", "rotated", "mercator"])
def test_a_projected_grid_has_the_corners_of_gdal(tmp_path: Path, name: str, shape: int) -> None:
    """On every Earth that GRIB has; eccodes itself places none of the flattened ones."""
    rasterio = pytest.importorskip("rasterio")
    path = make(tmp_path / "a.grib2", {**GRIDS[name], "shapeOfTheEarth": shape})
    grid = grid_of(open_frames(path))
    with rasterio.open(path, driver="GRIB") as file:
        pixel = abs(file.transform.a)
        np.testing.assert_allclose(grid.corners, file.bounds, rtol=0, atol=0.02 * pixel)


@pytest.mark.parametrize("kind", ["regular_gg", "reduced_gg", "sh", "space_view", "albers"])
def test_another_grid_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    from stpl_core.readers import grib_grid

    with pytest.raises(FrameError, match=f"a grid of the type {kind}"):
        grib_grid.refuse_unplaced({"gridType": kind, "Ni": 5, "Nj": 4}, tmp_path / "a.grib2")


@pytest.mark.parametrize("name", ["lambert", "polar stereographic"])
def test_rows_that_libraries_place_in_different_ways_are_refused(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "a.grib2", {**GRIDS[name], "jScansPositively": 0})
    with pytest.raises(FrameError, match=r"jScansPositively = 0.*grib_set -s jScansPositively=1"):
        open_frames(path)


def rain(steps: str = "0-1", name: str = "tp", **facts: Any) -> dict[str, Any]:
    return {**DEGREES, "shortName": name, "stepRange": steps, **facts}


@pytest.mark.parametrize(
    ("steps", "edition", "seconds"),
    [("0-1", 2, 3600), ("11-12", 2, 3600), ("15m-30m", 2, 900), ("0-6", 1, 21600)],
)
def test_an_amount_is_in_mm_over_its_period(
    tmp_path: Path, steps: str, edition: int, seconds: float
) -> None:
    facts = {"stepType": "accum", "edition": edition, "values": [0.005] * 10 + [0.0] * 10}
    opened = open_frames(make(tmp_path / "tp.grib2", {**facts, **rain(steps)}))
    quantity = quantity_of(opened)
    assert (quantity.units, quantity.accumulation_s) == ("mm", seconds)
    frame = opened["frames"].values[0, 0]
    assert frame[0, 0] == pytest.approx(5.0, rel=1e-4)
    assert opened["state"].values[0, 3, 4] == NO_ECHO


def test_a_rate_of_mass_is_in_mm_per_hour(tmp_path: Path) -> None:
    opened = open_frames(make(tmp_path / "r.grib2", rain("0", "prate", values=[1 / 720] * 20)))
    assert quantity_of(opened).units == "mm h-1"
    assert opened["frames"].values.max() == pytest.approx(5.0, rel=1e-4)


def test_sums_from_the_start_of_a_forecast_are_not_taken_for_steps(tmp_path: Path) -> None:
    path = make(tmp_path / "tp.grib2", rain("0-1"), rain("0-2"), rain("0-3"))
    with pytest.raises(FrameError, match=r"several periods: stepRange 0-1, 0-2, 0-3") as refused:
        open_frames(path)
    assert "grib_copy -w stepRange=0-1 tp.grib2" in str(refused.value)


def test_what_the_bitmap_leaves_out_is_no_data_whatever_its_number(tmp_path: Path) -> None:
    values = [9999.0, 280.0, 9998.0, *[281.0] * 17]
    facts = {**DEGREES, "shortName": "2t", "bitmapPresent": 1, "missingValue": 9998.0}
    facts |= {"bitsPerValue": 24, "units_of": 0, "values": values}
    del facts["units_of"]
    opened = open_frames(make(tmp_path / "b.grib2", facts), options=ReadOptions(bad_pixels=0.1))
    state = opened["state"].values[0]
    assert state[0, 2] == NO_DATA
    assert (state == NO_DATA).sum() == 2  # and 9999 K is beyond what a temperature may be


def test_of_several_levels_one_is_asked_for(tmp_path: Path) -> None:
    levels = [
        {**DEGREES, "shortName": "t", "typeOfLevel": "isobaricInhPa", "level": level,
         "values": [200.0 + level / 100] * 20}
        for level in (500, 850)
    ]  # fmt: skip
    path = make(tmp_path / "t.grib2", *levels)
    with pytest.raises(FrameError, match="--select level=500"):
        open_frames(path)
    chosen = open_frames(path, options=ReadOptions(select=(("level", "850"),)))
    assert chosen["frames"].values.max() == pytest.approx(208.5)
    with pytest.raises(FrameError, match="--select level=500"):
        open_frames(path, options=ReadOptions(select=(("level", "700"),)))
    with pytest.raises(UsageError, match="--select step=1"):
        open_frames(path, options=ReadOptions(select=(("step", "1"),)))
