"""Times in names: one answer for every reader and verb, or a question with the candidates."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.errors import FrameError
from stpl_core.reader import ReadOptions
from stpl_core.readers.folder_stamps import time_of_path
from stpl_core.readers.opening import open_frames
from stpl_core.readers.stamps import one_stamp, stamps_in
from stpl_core.readers.time_format import TimeFormat
from stpl_runtime.timing import NameClock

FIVE = datetime(2024, 6, 1, 12, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cam_2024-06-01_12-05-00.png", FIVE),
        ("2024-06-01T12:05:00Z.png", FIVE),
        ("rain_2024-06-01_1205.tif", FIVE),
        ("HRV_2024.06.01.1205.png", FIVE),
        ("radar_20240601T140500+0200.png", FIVE),
        ("radar_20240601T070500-05:00.png", FIVE),
        ("radar_20240601_1205_UTC.png", FIVE),
        (f"{int(FIVE.timestamp())}.png", FIVE),
        (f"cam_{int(FIVE.timestamp())}000.jpg", FIVE),
        ("radar_20240601_1205_created20240601_130000.png", FIVE),
        ("fc_202406010000_valid_202406011205.png", FIVE),
        ("3B-HHR.MS.MRG.3IMERG.20240601-S120500-E123459.0720.V07B.HDF5", FIVE),
        ("raa01-rw_10000-2406011205-dwd---bin", FIVE),
        ("composite_hx_20240601_1205-hd5", FIVE),
        ("frame_20240601_120500123.png", FIVE + timedelta(milliseconds=123)),
        ("2024060112.png", FIVE.replace(minute=0)),
        ("rain_2024-06-01.tif", FIVE.replace(hour=0, minute=0)),
        ("rain_20240601.h5", FIVE.replace(hour=0, minute=0)),
        ("image_1024x768_000123.png", None),
        ("frame_0007.npy", None),
    ],
)
def test_one_time(name: str, expected: datetime | None) -> None:
    found = one_stamp(name)
    assert (found and found.time) == expected
    if found is not None:
        assert NameClock().time(Path(name)) == expected  # what `stream` takes


def test_satellites_count_the_days_of_the_year() -> None:
    """14 digits that are a date too: the day of the year by strptime, tenths left out."""
    name = "OR_ABI-L2-CMIPC-M6C13_G16_s20241011200205_e20241011202578_c20241011203030.nc"
    found = one_stamp(name)
    assert found is not None
    assert found.time == datetime.strptime("20241011200 20Z", "%Y%j%H%M %SZ").replace(
        tzinfo=timezone.utc
    )
    modis = one_stamp("MOD06_L2.A2024101.1205.061.2024102013000.hdf")
    assert modis is not None
    assert modis.time == datetime(2024, 4, 10, 12, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "name",
    [
        "radar_202406011205_202406011305.png",  # observed, expires? which?
        "1706011200.png",  # seconds since 1970, or 2017
        "2012010100.png",  # 1 January 2012, or 1 December 2020
        "20240601_1205-0500.png",  # an offset, or a number
    ],
)
def test_what_may_mean_two_times_is_asked_for(name: str) -> None:
    with pytest.raises(FrameError, match="may mean several times") as refused:
        one_stamp(name)
    found = re.findall(r"--time-format '([^']+)' for ([\dTZ:-]+)", refused.value.fix)
    assert len(found) == 2
    for pattern, time in found:  # what it says to type works
        read = TimeFormat(pattern).time(Path(name))
        assert f"{read:%Y-%m-%dT%H:%M:%SZ}" == time


def test_a_zone_that_is_only_named_is_refused() -> None:
    with pytest.raises(FrameError, match="zone CEST"):
        one_stamp("cam_20240601_1405CEST.png")


@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2035, 12, 31)).map(
        lambda time: time.replace(microsecond=0)
    ),
    st.sampled_from(
        ["%Y%m%d%H%M%S", "%Y%m%d_%H%M%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d_%H-%M-%S", "%Y%j%H%M%S"]
    ),
    st.sampled_from(["", "radar_", "RAD_NL25_", "cam2-"]),
    st.sampled_from(["", "_v2", "-hd5", ".nc", ".png", ".pgm.gz"]),
)
def test_what_strftime_writes_is_read(time: datetime, form: str, before: str, after: str) -> None:
    check_name(time, form, before, after)


def test_a_day_of_the_year_as_iso_8601_writes_it() -> None:
    stamp = one_stamp("rain_2024-153T12:05:00Z.png")
    assert stamp is not None
    assert stamp.time == datetime(2024, 6, 1, 12, 5, tzinfo=timezone.utc)
    assert TimeFormat(stamp.time_format).time(Path("rain_2024-153T12:05:00.png")) == stamp.time
    assert one_stamp("camera_2024-153_1205.png") is None  # a serial number?


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(
    st.datetimes(datetime(1980, 1, 1), datetime(2035, 12, 31)),
    st.sampled_from(["%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d_%H-%M-%S", "%Y%j%H%M%S"]),
    st.sampled_from(["", "radar_", "RAD_NL25_", "cam2-"]),
    st.sampled_from(["", "_v2", "-hd5", ".nc", ".png", ".pgm.gz"]),
)
def test_many_names(time: datetime, form: str, before: str, after: str) -> None:
    check_name(time.replace(microsecond=0), form, before, after)


def check_name(time: datetime, form: str, before: str, after: str) -> None:
    name = f"{before}{time.strftime(form)}{after}"
    assert time.replace(tzinfo=timezone.utc) in [stamp.time for stamp in stamps_in(name)]
    assert TimeFormat(form).time(Path(name)) == time.replace(tzinfo=timezone.utc)


def test_time_format_takes_folders_anything_and_seconds() -> None:
    path = Path("archive/2024/06/01/1205.png")
    assert TimeFormat("%Y/%m/%d/%H%M").time(path) == FIVE
    assert TimeFormat("*_%Y%m%d%H%M").time(Path("a_202406010000_202406011205.png")) == FIVE
    assert TimeFormat("%s").time(Path(f"x{int(FIVE.timestamp())}.png")) == FIVE


def test_pictures_by_their_names(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("xarray")
    from stpl_core.readers.opening import open_frames

    grey = image.fromarray(np.zeros((8, 8), np.uint8))
    for n in range(3):  # a serial number that looks like a date: counted
        (tmp_path / "serial").mkdir(exist_ok=True)
        grey.save(tmp_path / "serial" / f"sensor201912310459_{n:03}.png")
        (tmp_path / "day" / "06").mkdir(parents=True, exist_ok=True)
        grey.save(tmp_path / "day" / "06" / f"12{5 * n:02}.png")
        (tmp_path / "mixed").mkdir(exist_ok=True)
        grey.save(tmp_path / "mixed" / ("x.png" if n == 2 else f"20240601120{n}.png"))
    assert open_frames(tmp_path / "serial").attrs["time_is"] == "counted"
    with pytest.raises(FrameError, match=r"x\.png has no time in its name"):
        open_frames(tmp_path / "mixed")
    stated = open_frames(tmp_path / "day", options=ReadOptions(time_format="%m/%H%M"))
    assert stated.attrs["cadence_s"] == 300


@pytest.mark.parametrize(
    "path",
    [
        "2024/06/01/1205.png",
        "2024/06/01/120500.npy",
        "2024/06/01/12-05.png",
        "2024/06/01/12/05.tif",
        "2024/06/01/12/0500.tif",
        "20240601/1205.nc",
        "2024-06-01/cam1_12h05.png",
        "2024/0601/12_05_00.png",
        "202406/01/1205.npy.gz",
        "2024/153/1205.png",
        "2024/06/01/rain_202406011205.h5",
        "2024/05/31/rain_202406011205.h5",
    ],
)
def test_a_time_in_the_folders_and_the_name(path: str) -> None:
    assert time_of_path(Path("/archive") / path) == np.datetime64("2024-06-01T12:05:00", "ns")
    assert NameClock().time(Path("/archive") / path) == FIVE


@pytest.mark.parametrize(
    "path",
    ["2024/06/01/0060.png", "2024/06/01/0001_1205_0007.png", "2024/13/01/1205.png",
     "v2024/06/01/1205.png", "2024/06/01/deep/1205.png", "2024/06/01/frame_00001205.png"],
)  # fmt: skip
def test_no_time_in_the_folders_and_the_name(path: str) -> None:
    assert time_of_path(Path("/archive") / path) is None


def test_folders_of_another_day_are_asked_for() -> None:
    path = Path("/archive/2023/06/01/rain_202406011205.h5")
    with pytest.raises(FrameError, match=r"202406011205.*2023-06-01.*--time-format '%Y%m%d%H%M'"):
        time_of_path(path)
    assert TimeFormat("%Y%m%d%H%M").time(path) == FIVE


def test_numbered_pictures_in_dated_folders_are_counted(tmp_path: Path) -> None:
    from PIL import Image

    pytest.importorskip("xarray")
    folder = tmp_path / "2024/06/01"
    folder.mkdir(parents=True)
    for n in (58, 59, 60, 61):
        Image.fromarray(np.full((4, 4), n, np.uint8)).save(folder / f"{n:04d}.png")
    opened = open_frames(tmp_path)
    assert (opened.attrs["time_is"], opened.sizes["time"]) == ("counted", 4)
