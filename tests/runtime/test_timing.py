"""When a frame was observed, and which slot that is."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from stpl_core.errors import FrameError, UsageError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import NameClock, TimeGrid, duration_text, time_from_text, time_text
from tests.runtime.conftest import START, picture


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc, arg-type]


def test_durations() -> None:
    assert [duration_text(ms) for ms in (0.0, 12.34, 999.9, 1000.0, 19612.4)] == [
        "0.0 ms", "12.3 ms", "999.9 ms", "1.00 s", "19.61 s"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20260131235000.npy", utc(2026, 1, 31, 23, 50)),
        ("radar_202601312350.png", utc(2026, 1, 31, 23, 50)),
        ("RAD_NL25_20260131T235005_v2.npy", utc(2026, 1, 31, 23, 50, 5)),
        ("v12_20260131-2350.npy", utc(2026, 1, 31, 23, 50)),
        ("99999999999999_20260131235000.npy", utc(2026, 1, 31, 23, 50)),  # no date: go on
    ],
)
def test_time_from_digits(name: str, expected: datetime) -> None:
    assert NameClock().time(Path(name)) == expected


def test_index_times_cadence() -> None:
    clock = NameClock(cadence_s=300.0)
    times = [clock.time(Path(f"frame_{n:03d}.npy")) for n in (0, 1, 12)]
    assert [(t - times[0]).total_seconds() for t in times] == [0.0, 300.0, 3600.0]
    assert clock.indexed


def test_an_index_without_a_cadence_says_what_to_type() -> None:
    with pytest.raises(UsageError, match="--cadence SECONDS"):
        NameClock().time(Path("frame_007.npy"))


def test_one_folder_does_not_mix_dates_and_indices() -> None:
    clock = NameClock(cadence_s=300.0)
    clock.time(Path("20260131235000.npy"))
    with pytest.raises(FrameError, match="as in the first name"):
        clock.time(Path("frame_7.npy"))


@pytest.mark.parametrize("name", ["latest.npy", "frame_99999999999999999999.npy"])
def test_a_name_without_a_time(name: str) -> None:
    with pytest.raises(FrameError, match="--time-format"):
        NameClock(cadence_s=300.0).time(Path(name))


@pytest.mark.parametrize(
    ("time_format", "name", "expected"),
    [
        ("%y%j%H%M", "RAD26031_260312350.npy", utc(2026, 1, 31, 23, 50)),
        ("%d.%m.%Y_%Hh%M", "x31.01.2026_23h50.npy", utc(2026, 1, 31, 23, 50)),
        ("%Y%m%d%H%M%z", "a202602010050+0100.npy", utc(2026, 1, 31, 23, 50)),
        ("%d%b%Y", "31Jan2026.npy", utc(2026, 1, 31)),
        ("%H%M%S%%%f", "235000%25.npy", utc(1900, 1, 1, 23, 50, 0, 250_000)),
    ],
)
def test_time_format(time_format: str, name: str, expected: datetime) -> None:
    assert NameClock(time_format).time(Path(name)) == expected


@pytest.mark.parametrize("time_format", ["%Q", "frame", "%", "100%%"])
def test_a_time_format_that_cannot_work(time_format: str) -> None:
    with pytest.raises(UsageError, match="strptime pattern"):
        NameClock(time_format)


def test_a_time_format_that_is_not_in_the_name() -> None:
    with pytest.raises(FrameError, match="holds no time"):
        NameClock("%Y-%m-%d").time(Path("20260131.npy"))


def test_mtime_only_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "20260131235000.npy"
    path.touch()
    os.utime(path, (1000.0, 1000.0))
    assert NameClock(mtime=True).time(path) == utc(1970, 1, 1, 0, 16, 40)
    assert NameClock().time(path) == START


def test_times_beyond_all_years(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems keep any number; and midnight of the first day was the year before."""
    path = tmp_path / "latest.npy"
    path.touch()
    there = os.stat_result((*path.stat()[:8], 9 * 10**12, 0))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda _path: there)
        with pytest.raises(FrameError, match="the modification time of latest"):
            NameClock(mtime=True).time(path)
    with pytest.raises(FrameError, match="holds no time"):
        NameClock("%Y%m%d%H%M%z").time(Path("000101010000+0500.npy"))
    clock = NameClock("%Y%m%d%H%M%z")
    assert clock.time(Path("202601312350+0500.npy")) == utc(2026, 1, 31, 18, 50)


@pytest.mark.parametrize(
    ("seconds", "slot"),
    [(0, 0), (300, 1), (374, 1), (376, None), (524, None), (526, 2), (-300, -1), (-380, None)],
)
def test_grid(seconds: int, slot: int | None) -> None:
    assert TimeGrid(300.0, START).slot(START + timedelta(seconds=seconds)) == slot


def test_grid_of_thirds_of_a_second_holds_for_a_day() -> None:
    grid = TimeGrid(1 / 30, START)
    assert grid.slot(START + timedelta(seconds=86_400)) == 86_400 * 30


@pytest.mark.parametrize(
    ("cadence_s", "past", "ahead"),
    [
        (300.0, "-10 min", "+15 min"),
        (3600.0, "-2 h", "+3 h"),
        (0.04, "-0.08 s", "+0.12 s"),
        (90.0, "-180 s", "+270 s"),
        (None, "-2", "+3"),
    ],
)
def test_lead_texts(cadence_s: float | None, past: str, ahead: str) -> None:
    frames = picture(0)[None]
    nowcast = Nowcast(frames, frames, "1", "grey level", 0.0, 1.0, cadence_s=cadence_s)
    assert (nowcast.lead_text(-2), nowcast.lead_text(3)) == (past, ahead)


def test_valid_times_follow_the_issue_time() -> None:
    frames = picture(0)[None].repeat(3, axis=0)  # (K, C, H, W)
    nowcast = Nowcast(frames, frames, "1", "x", 0.0, 1.0, issue_time=START, cadence_s=300.0)
    assert [time_text(t) for t in nowcast.valid_times] == [
        "20260131T235500Z",
        "20260201T000000Z",
        "20260201T000500Z",
    ]
    assert nowcast.name == "nowcast_20260131T235000Z"


@pytest.mark.parametrize(
    ("text", "after_noon_s"),
    [
        ("2026-01-31T12:00:00Z", 0.0),
        ("2026-01-31t13:00:00+01:00", 0.0),
        (" 2026-01-31 12:00 ", 0.0),
        ("2026-01-31T12:00:00.1234567Z", 0.123456),
        ("2026-01-31T12:00:01.5", 1.5),
    ],
)
def test_times_in_texts(text: str, after_noon_s: float) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    assert time_from_text(text) == noon + timedelta(seconds=after_noon_s)


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_texts_that_hold_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        time_from_text(text)
