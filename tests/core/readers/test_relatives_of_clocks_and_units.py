"""Clocks and units of NetCDF as models write them; expected: cftime, cf-units or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

netCDF4 = pytest.importorskip("netCDF4")
cftime = pytest.importorskip("cftime")
pytest.importorskip("xarray")
pytest.importorskip("pint")

from stpl_core.errors import FrameError  # noqa: E402
from stpl_core.readers.opening import open_frames  # noqa: E402
from stpl_core.readers.units import understood  # noqa: E402
from tests.core.readers.relatives import MINUTES, lay, netcdf, rain  # noqa: E402

NOON = "hours since 2024-06-01 12:00"


def clocks(path: Path) -> list[str]:
    return [str(time)[:19] for time in open_frames(path)["time"].values]


@pytest.mark.parametrize(
    ("units", "calendar", "numbers"),
    [
        ("days since 2024-02-28", "noleap", (0, 1)),
        ("days since 2024-03-01", "360_day", (0, 1)),
        ("days since 2024-06-01", "julian", (0, 1)),
        ("months since 2024-01-01", "360_day", (0, 1)),
        ("milliseconds since 1970-01-01", "standard", (1717243200000, 1717243500000)),
        ("hours since 1900-1-1 0:0:0.0", "gregorian", (1090548, 1090549)),
        ("hours since 2024-06-01 00:00:00 +02:00", "standard", (0, 1)),
        ("Seconds Since 2024-06-01T12:00:00Z", "proleptic_gregorian", (0, 300)),
    ],
)
def test_numbers_as_cftime(tmp_path: Path, units: str, calendar: str, numbers: Any) -> None:
    made = netcdf(tmp_path / "a.nc", times=numbers, clock={"units": units, "calendar": calendar})
    theirs = cftime.num2date(np.array(numbers, "f8"), units, calendar)
    assert clocks(made) == [f"{time:%Y-%m-%dT%H:%M:%S}" for time in theirs]


@pytest.mark.parametrize(
    ("units", "numbers"),
    [
        ("nanoseconds since 1970-01-01", (1717243200 * 10**9, 1717243500 * 10**9)),
        ("hours since 2024/06/01 12:00", (0, 1 / 12)),
        ("weeks since 2024-05-25 12:00", (1, 1 + 1 / 2016)),
        ("seconds since 20240601T120000Z", (0, 300)),
    ],
)
def test_numbers_that_cftime_leaves(tmp_path: Path, units: str, numbers: Any) -> None:
    made = netcdf(tmp_path / "a.nc", times=numbers, clock={"units": units})
    assert clocks(made) == ["2024-06-01T12:00:00", "2024-06-01T12:05:00"]


@pytest.mark.parametrize(
    ("units", "calendar", "words"),
    [
        ("days since 2023-02-29", "360_day", "2023-02-29"),
        ("months since 2024-01-01", "standard", "-a units,time"),
        ("days since 2024-06-01", "martian", "-a calendar,time"),
        ("hours since 01-06-2024 00:00", "standard", "01-06-2024"),
        ("YYYYMMDDHH", "standard", "time in 'YYYYMMDDHH'"),
    ],
)
def test_what_is_not_understood_is_quoted(
    tmp_path: Path, units: str, calendar: str, words: str
) -> None:
    made = netcdf(tmp_path / "a.nc", times=(0, 1), clock={"units": units, "calendar": calendar})
    with pytest.raises(FrameError) as refused:
        open_frames(made)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "texts",
    [
        ("2024-06-01T12:00:00Z", "2024-06-01T12:05:00Z"),
        ("2024-06-01 14:00:00+02:00", "2024-06-01 14:05:00+02:00"),
        ("20240601120000", "20240601120500"),  # not the years 1679 and 2179
        ("202406011200", "202406011205"),
        ("20240601T1200Z", "20240601T1205Z"),
        ("2024-06-01_12:00:00", "2024-06-01_12:05:00"),
    ],
)
def test_texts(tmp_path: Path, texts: tuple[str, str]) -> None:
    made = netcdf(tmp_path / "a.nc", times=texts, clock={})
    assert clocks(made) == ["2024-06-01T12:00:00", "2024-06-01T12:05:00"]


@pytest.mark.parametrize("texts", [("2024", "2025"), ("01.06.2024", "02.06.2024")])
def test_texts_that_are_no_times(tmp_path: Path, texts: tuple[str, str]) -> None:
    with pytest.raises(FrameError, match=f"the time '{texts[0]}'"):
        open_frames(netcdf(tmp_path / "a.nc", times=texts, clock={}))


START = {"units": NOON, "standard_name": "forecast_reference_time"}
LEAD = {"units": "hours", "standard_name": "forecast_period"}


@pytest.mark.parametrize("way", ["along", "scalar", "clock", "start alone"])
def test_starts_and_lead_times_are_added(tmp_path: Path, way: str) -> None:
    """A start and a lead time, without the time that they make."""

    def beside(file: Any) -> None:
        if way == "along":  # one start, a lead time for each frame
            lay(file, "start", (), 0.0, **START)
            lay(file, "forecast_period", ("time",), np.array([1.0, 2.0]), **LEAD)
        else:
            lay(file, "step", (), 1.0, **LEAD)
        if way == "clock":  # as cfgrib writes analyses: the time is that of the start
            lay(file, "valid_time", ("time",), np.array([1.0, 2.0]), units=NOON)

    if way == "start alone":
        made = netcdf(tmp_path / "a.nc", times=(0.0,), clock=START, extra=beside)
        assert clocks(made) == ["2024-06-01T13:00:00"]
        return
    times = None if way == "along" else (0.0, 1.0)
    made = netcdf(tmp_path / "a.nc", times=times, clock=START, extra=beside)
    assert clocks(made) == ["2024-06-01T13:00:00", "2024-06-01T14:00:00"]


def test_frames_without_a_clock_are_refused(tmp_path: Path) -> None:
    """Bounds alone, or numbers of year, month and day, are no clock along the frames."""

    def bounds(file: Any) -> None:
        file.createDimension("nv", 2)
        lay(file, "time_bnds", ("time", "nv"), np.array([[0.0, 5], [5, 10]]), units=MINUTES)

    made = netcdf(tmp_path / "rain_202406011200.nc", times=None, extra=bounds)
    with pytest.raises(FrameError, match="2 along time, and no variable says when"):
        open_frames(made)


@pytest.mark.parametrize("dims", [("y", "x", "time"), ("time", "x", "y"), ("x", "y", "time")])
def test_dimensions_in_any_order(tmp_path: Path, dims: tuple[str, ...]) -> None:
    opened = open_frames(netcdf(tmp_path / "a.nc", dims=dims))
    np.testing.assert_array_equal(opened["frames"].values[:, 0], np.stack([rain()] * 2))


@pytest.mark.parametrize("name", ["level", "height", "isobaric", "realization", "number", "z"])
def test_one_level_or_member_is_squeezed(tmp_path: Path, name: str) -> None:
    def other(file: Any) -> None:
        file.createDimension(name, 1)
        lay(file, name, (name,), np.array([850.0]), units="hPa")
        stack = np.stack([rain()[None]] * 2)
        lay(file, "tp", ("time", name, "y", "x"), stack, units="mm/h")
        file.renameVariable("rr", "tp_quality")
        file["tp"].ancillary_variables = "tp_quality"

    opened = open_frames(netcdf(tmp_path / "a.nc", extra=other))
    assert opened["frames"].shape == (2, 1, 8, 8)


RATE = "mm h-1"


@pytest.mark.parametrize(
    ("text", "name", "factor"),
    [
        ("mm/0.5h", RATE, 2),
        ("mm h^{-1}", RATE, 1),
        ("mm hr$^{-1}$", RATE, 1),
        ("mm h\u22121", RATE, 1),
        ("\u339c/h", RATE, 1),
        ("mmhr-1", RATE, 1),
        ("0.1 mm", "mm", 0.1),
        ("1/100 mm", "mm", 0.01),
        ("m of water", "mm", 1000),
        ("m of water equivalent", "mm", 1000),
        ("mm w.e.", "mm", 1),
        ("inch/hour", RATE, 25.4),
        ("DBZH", "dBZ", 1),
        ("dB(Z)", "dBZ", 1),
        ("mm/5'", "mm/5'", 1),  # minutes of an hour, or of an angle
        ("mm since 00 UTC", "mm since 00 UTC", 1),
        ("mm6 m-3", "mm6 m-3", 1),
    ],
)
def test_units_of_rain(text: str, name: str, factor: float) -> None:
    found = understood(text, "total precipitation")
    assert (found.name, found.factor) == (name, pytest.approx(factor, rel=1e-12))


@pytest.mark.parametrize(
    "text",
    ["mm d-1", "mm s-1", "cm h-1", "kg m-2 s-1", "kg m-2 h-1", "g m-2 s-1", "l m-2 h-1", "um/s"],
)
def test_rates_as_cf_units(text: str) -> None:
    unit = pytest.importorskip("cf_units").Unit(text)
    rate = unit.convert(1.0, "kg m-2 h-1" if unit.is_convertible("kg m-2 h-1") else "mm h-1")
    found = understood(text, "rainfall rate")
    assert (found.name, found.factor) == (RATE, pytest.approx(rate, rel=1e-6))
