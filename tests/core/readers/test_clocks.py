"""Units of time as people write them after `since`, and what a library would overlook there."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

for library in ("netCDF4", "xarray", "pint"):  # an edge device has none of them
    pytest.importorskip(library)

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from stpl_core.errors import FrameError, UsageError
from stpl_core.reader import ReadOptions
from stpl_core.readers.converted import quantity_of
from stpl_core.readers.opening import open_frames
from stpl_core.readers.store import convert

H, W = 4, 5


def lay_grid(file: netCDF4.Dataset) -> None:
    """Latitudes from the north and longitudes from the west."""
    for name, line, unit in (
        ("lat", 50 - 0.1 * np.arange(H), "degrees_north"),
        ("lon", 5 + 0.1 * np.arange(W), "degrees_east"),
    ):
        file.createDimension(name, len(line))
        made = file.createVariable(name, "f8", (name,))
        made[:], made.units = line, unit


def rain(path: Path, count: int = 2, **clock: Any) -> Path:
    """Rain every five minutes; `clock` are the units, numbers and attributes of the time."""
    numbers = clock.pop("numbers", 300.0 * np.arange(count))
    attributes = {"units": "seconds since 2024-06-01 12:00:00", **clock}
    with netCDF4.Dataset(path, "w") as file:
        lay_grid(file)
        file.createDimension("time", count)
        time = file.createVariable("time", "f8", ("time",))
        time.setncatts(attributes)
        time.set_auto_maskandscale(False)
        time[:] = numbers
        field = file.createVariable("rr", "f4", ("time", "lat", "lon"))
        field.units = "mm/h"
        field[:] = np.ones((count, H, W))
    return path


@pytest.mark.parametrize(
    ("units", "numbers", "first"),
    [
        ("seconds since 2024-06-01 12:00:00 +5:30", 0, "06:30"),
        ("seconds since 2024-06-01 12:00:00 -7", 0, "19:00"),
        ("seconds since 2024-06-01 12:00:00 -0700", 0, "19:00"),
        ("seconds since 2024-06-01 12:00:00 0:00", 0, "12:00"),
        ("seconds since 2024-06-01T12:00:00.000Z", 0, "12:00"),
        ("seconds since 2024-6-1 12:0:0 UTC", 0, "12:00"),
        ("seconds since 20240601 120000", 0, "12:00"),
        ("seconds since 20240601T1200Z", 0, "12:00"),
        ("milliseconds since 1970-01-01", 1717243200000, "12:00"),
        ("msecs since 1970-01-01 00:00:00", 1717243200000, "12:00"),
        ("minutes since 2024-06-01 12", 0, "12:00"),
        ("hours since 1-1-1 00:00:0.0", 17736948, "12:00"),
        ("hours since 1800-01-01 00:00:0.0", 1967196, "12:00"),
    ],
)
def test_one_moment_in_many_units(tmp_path: Path, units: str, numbers: float, first: str) -> None:
    path = rain(tmp_path / "rain.nc", 1, units=units, numbers=[numbers])
    assert str(open_frames(path)["time"].values[0])[:16] == f"2024-06-01T{first}"


@pytest.mark.filterwarnings("ignore:this date")  # of the referee
def test_days_of_the_julian_period(tmp_path: Path) -> None:
    """JD 2460463.0 is noon of 1 June 2024 in the Gregorian calendar."""
    facts = {"units": "days since -4713-01-01 12:00:00", "calendar": "standard"}
    opened = open_frames(rain(tmp_path / "rain.nc", 1, numbers=[2460463.0], **facts))
    dates = netCDF4.num2date([2460463.0], **facts)
    assert str(opened["time"].values[0])[:19] == dates[0].isoformat()


@pytest.mark.parametrize(
    "units",
    [
        "seconds since 2024-06-01 12:00:00 CET",
        "seconds since 2024-06-01 12:00:00 +25:00",
        "seconds since 1 June 2024",
        "days since 01/06/2024",
        "days since 202406011200",
        "fortnights since 2024-06-01",
    ],
)
def test_what_is_not_understood_is_quoted(tmp_path: Path, units: str) -> None:
    with pytest.raises(FrameError) as refused:
        open_frames(rain(tmp_path / "rain.nc", units=units))
    assert repr(units) in str(refused.value)


def test_the_pattern_of_the_name_goes_before_a_clock_that_nobody_reads(tmp_path: Path) -> None:
    path = rain(tmp_path / "rain_202406011205.nc", 1, units="fortnights since 2024-06-01")
    with pytest.raises(FrameError, match="--time-format PATTERN"):
        open_frames(path)
    opened = open_frames(path, options=ReadOptions(time_format="%Y%m%d%H%M"))
    assert str(opened["time"].values[0])[:16] == "2024-06-01T12:05"


def test_a_fill_value_is_no_time(tmp_path: Path) -> None:
    path = rain(tmp_path / "rain.nc", numbers=[0.0, netCDF4.default_fillvals["f8"]])
    with pytest.raises(FrameError, match="a time that is missing"):
        open_frames(path)


def test_a_clock_along_a_dimension_that_the_field_lacks(tmp_path: Path) -> None:
    path = rain(tmp_path / "rain_202406010000.nc", 1)
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("rr", "other")
        file["other"].units = "1"
        field = file.createVariable("rr", "f4", ("lat", "lon"))
        field.setncatts({"units": "mm/h", "ancillary_variables": "other"})
        field[:] = 1.0
    assert str(open_frames(path)["time"].values[0])[:16] == "2024-06-01T12:00"


def test_a_scalar_that_is_called_as_a_dimension(tmp_path: Path) -> None:
    """NetCDF-4 stores it under another name, and the dimension under this one."""
    with netCDF4.Dataset(tmp_path / "rain.nc", "w") as file:
        lay_grid(file)
        file.createDimension("time", 1)
        time = file.createVariable("time", "f8", ())
        time[:], time.units = 300.0, "seconds since 2024-06-01 12:00:00"
        field = file.createVariable("rr", "f4", ("lat", "lon"))
        field[:], field.units = np.ones((H, W)), "mm/h"
    opened = open_frames(tmp_path / "rain.nc")
    assert str(opened["time"].values[0])[:16] == "2024-06-01T12:05"


def test_times_as_texts_of_wrf(tmp_path: Path) -> None:
    path = rain(tmp_path / "wrfout.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("time", "other")
        file["other"].delncattr("units")
        file.createDimension("DateStrLen", 19)
        texts = np.array(["2024-06-01_12:00:00", "2024-06-01_12:10:00"], "S19")
        file.createVariable("Times", "S1", ("time", "DateStrLen"))[:] = netCDF4.stringtochar(texts)
    opened = open_frames(path)
    assert [str(time)[11:16] for time in opened["time"].values] == ["12:00", "12:10"]


def test_a_time_beyond_what_64_bits_hold_is_refused(tmp_path: Path) -> None:
    path = rain(tmp_path / "rain.nc", units="days since 1970-01-01", numbers=[0.0, 2e5])
    with pytest.raises(FrameError, match="a time in the year"):
        open_frames(path)


@pytest.mark.parametrize("unit", [None, "minutes since 2024-06-01 12:00:00"])
def test_bounds_in_a_unit_of_their_own(tmp_path: Path, unit: str | None) -> None:
    path = rain(tmp_path / "rain.nc", bounds="time_bnds")
    seconds = np.array([[-300.0, 0.0], [0.0, 300.0]])
    with netCDF4.Dataset(path, "a") as file:
        file.createDimension("nv", 2)
        bounds = file.createVariable("time_bnds", "f8", ("time", "nv"))
        bounds[:] = seconds / (1 if unit is None else 60)
        if unit is not None:
            bounds.units = unit
        file["rr"].setncatts({"units": "mm", "cell_methods": "time: sum"})
    assert quantity_of(open_frames(path)).accumulation_s == 300


def test_an_attribute_has_the_time_of_day_that_the_name_lacks(tmp_path: Path) -> None:
    path = rain(tmp_path / "rain_20240601.nc", 1)
    with netCDF4.Dataset(path, "a") as file:
        file.renameVariable("time", "other")
        file["other"].delncattr("units")
        file.time_coverage_start = "2024-06-01T12:05:00Z"
    assert str(open_frames(path)["time"].values[0])[:16] == "2024-06-01T12:05"
    path.rename(tmp_path / "rain_20240602.nc")
    assert str(open_frames(tmp_path / "rain_20240602.nc")["time"].values[0])[:16] == (
        "2024-06-02T00:00"
    )


def test_options_hold_for_an_archive_of_ours(tmp_path: Path) -> None:
    convert(rain(tmp_path / "rain.nc"), tmp_path / "own.nc")
    opened = open_frames(tmp_path / "own.nc", options=ReadOptions(units="mm/5min"))
    assert opened["frames"].values.max() == 12


@pytest.mark.parametrize("name", ["variable", "select"])
def test_an_option_that_does_nothing_is_refused(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "frames.npy", np.zeros((4, 8, 8), np.float32))
    chosen = {"select": ReadOptions(select=(("level", "1"),))}
    chosen["variable"] = ReadOptions(variable="rain")
    path = tmp_path / "frames.npy"
    if name == "variable":
        path = tmp_path / "rain_202406011200.tif"
        rasterio = pytest.importorskip("rasterio")
        how = {"driver": "GTiff", "height": H, "width": W, "count": 1, "dtype": "float32"}
        with rasterio.open(path, "w", transform=rasterio.Affine(1, 0, 5, 0, -1, 50), **how) as file:
            file.write(np.ones((H, W), np.float32), 1)
    with pytest.raises(UsageError, match=f"--{name}"):
        open_frames(path, options=chosen[name])
