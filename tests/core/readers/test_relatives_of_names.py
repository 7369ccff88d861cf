"""Times in names as cameras, satellites and services write them; expected: by hand."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from stpl_core.errors import FrameError
from stpl_core.readers.stamps import one_stamp
from stpl_core.readers.time_format import TimeFormat

HALF_PAST_TWO = datetime(2023, 6, 15, 14, 30, tzinfo=timezone.utc)
EARLIER = HALF_PAST_TWO - timedelta(hours=2)
SECOND = int(HALF_PAST_TWO.timestamp())


def after(**parts: float) -> datetime:
    return HALF_PAST_TWO + timedelta(**parts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rain_20230615T1430Z.nc", HALF_PAST_TWO),
        ("rain_2023166.1430.nc", HALF_PAST_TWO),
        ("rain_2023-166T14-30-00.nc", HALF_PAST_TWO),
        ("rain_20230615-0230PM.nc", HALF_PAST_TWO),
        ("rain_20230615_02-30-00_pm.nc", HALF_PAST_TWO),
        ("rain_20230615_1430pm.nc", HALF_PAST_TWO),
        ("rain_20230615-1205am.nc", HALF_PAST_TWO.replace(hour=0, minute=5)),
        ("rain_20230615-14h30m00s.nc", HALF_PAST_TWO),
        ("rain_20230615T143000+02.nc", EARLIER),
        ("rain_2023-06-15 14:30:00+02.nc", EARLIER),
        ("rain_2023-06-15T14-30-00+02-00.nc", EARLIER),
        ("rain_20230615T1430-1435.nc", HALF_PAST_TWO),
        ("rain_20230615_143000.123.nc", after(milliseconds=123)),
        ("MSG3-SEVI-MSG15-0100-NA-20230615143000.722000000Z-NA.nc", after(milliseconds=722)),
        (f"cam_{SECOND}.5.jpg", after(milliseconds=500)),
        (f"cam_{SECOND}.123456.jpg", after(microseconds=123456)),
        (f"{SECOND}123456.png", after(microseconds=123456)),
        (f"{SECOND}123456789.png", after(microseconds=123456)),
        ("MRMS_PrecipRate_00.00_20230615-143000.grib2", HALF_PAST_TWO),
        ("NC_H09_20230615_1430_R21_FLDK.02401_02401.nc", HALF_PAST_TWO),
        ("metoffice-c-band-rain-radar_uk_202306151430_1km-composite.dat.gz", HALF_PAST_TWO),
        ("cam_192.168.1.10_20230615143000.jpg", HALF_PAST_TWO),
        ("rain_20230615_2400.nc", None),
        ("rain_20230229_1430.nc", None),
        ("rain_15-06-2023_14-30.nc", None),
    ],
)
def test_one_time(name: str, expected: datetime | None) -> None:
    found = one_stamp(name)
    assert (found and found.time) == expected
    if found is not None:  # the pattern that it was read by reads it too
        assert TimeFormat(found.time_format).time(Path(name)) == expected


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("rain_202306151430+02.nc", 2),  # an offset, or hours ahead
        ("rain_2023-06-15T14-30-00-05-00.nc", 2),  # an offset, or numbers
        ("1430_20230615.nc", 2),  # half past two, or midnight of 1430
        ("14h30_20230615.nc", 2),
        ("S2A_MSIL1C_20230615T105621_N0509_R094_T31UET_20230615T143121.tif", 2),
        ("FCI_C_EUMT_20230615143512_IDPFI_OPE_20230615143007_20230615143024_N.nc", 3),
        ("rain_20230615_1430-20230615_1435.nc", 2),
    ],
)
def test_what_is_asked_for_can_be_typed(name: str, count: int) -> None:
    with pytest.raises(FrameError, match="may mean several times") as refused:
        one_stamp(name)
    found = re.findall(r"--time-format '([^']+)' for ([\dTZ:-]+)", refused.value.fix)
    assert len(found) == count == len({pattern for pattern, _ in found})
    for pattern, time in found:
        read = TimeFormat(pattern).time(Path(name))
        assert f"{read:%Y-%m-%dT%H:%M:%SZ}" == time


@pytest.mark.parametrize("zone", ["MESZ", "MEZ", "HKT", "SGT", "AKDT", "HST", "SAST", "BST"])
def test_zones_that_are_only_named(zone: str) -> None:
    with pytest.raises(FrameError, match=f"zone {zone}"):
        one_stamp(f"cam_20230615_1430_{zone}.png")
