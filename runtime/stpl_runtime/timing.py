"""Time: the cadence grid, and when a file's frame was observed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from stpl_core.errors import FrameError, UsageError
from stpl_core.readers.folder_stamps import time_of_path
from stpl_core.readers.time_format import EPOCH as EPOCH
from stpl_core.readers.time_format import TimeFormat

TOLERANCE = 0.25
"""How far from its slot a frame may lie, as a fraction of the cadence."""


@dataclass(frozen=True)
class TimeGrid:
    """Slots of equal length; slot 0 is at `phase`."""

    cadence_s: float
    phase: datetime

    @classmethod
    def through(cls, time: datetime, slot: int, cadence_s: float) -> TimeGrid:
        """The grid on which `time` is exactly `slot`."""
        return cls(cadence_s, time - timedelta(seconds=slot * cadence_s))

    def offset(self, time: datetime) -> float:
        """Where `time` lies, in slots."""
        return (time - self.phase).total_seconds() / self.cadence_s

    def time(self, slot: int) -> datetime:
        """When `slot` is."""
        return self.phase + timedelta(seconds=slot * self.cadence_s)

    def slot(self, time: datetime) -> int | None:
        """The slot that `time` belongs to; None where it lies off the grid."""
        offset = self.offset(time)
        slot = math.floor(offset + 0.5)
        return slot if abs(offset - slot) <= TOLERANCE + 1e-9 else None


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(timezone.utc)


def duration_text(ms: float) -> str:
    """Milliseconds as messages show them, such as `12.3 ms` or `1.95 s`."""
    return f"{ms:.1f} ms" if ms < 1e3 else f"{ms / 1e3:.2f} s"


def time_text(time: datetime) -> str:
    """UTC time as file names and messages show it, such as `20260131T120500Z`."""
    fraction = f".{time.microsecond:06d}" if time.microsecond else ""
    return f"{time.astimezone(timezone.utc):%Y%m%dT%H%M%S}{fraction}Z"


def utc_text(time: datetime) -> str:
    """UTC time as documents hold it, such as `2026-01-31T23:50:00Z`."""
    return f"{naive_utc(time).isoformat()}Z"


def naive_utc(time: datetime) -> datetime:
    """UTC time without its zone, as numpy and xarray want it."""
    return time.astimezone(timezone.utc).replace(tzinfo=None)


def time_from_text(text: str) -> datetime:
    """A time in ISO 8601 as UTC; UTC where it has no zone.

    Raises:
        ValueError: it is none.
    """
    # Python 3.10 reads neither Z nor fractions of other than three or six digits.
    plain = _FRACTION.sub(lambda match: f".{match[1]:0<6.6}", text.strip().upper())
    found = datetime.fromisoformat(plain.replace("Z", "+00:00"))
    try:
        return found.replace(tzinfo=found.tzinfo or timezone.utc).astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError(f"{text} is beyond the years 1 to 9999 in UTC") from error


_FRACTION = re.compile(r"\.(\d+)")
_INDEX = re.compile(r"(\d+)$")


class NameClock:
    """Says when a file's frame was observed: from its name, or its mtime where that was asked for.

    The way that fits the first file is kept: a folder does not mix dates and indices.
    """

    def __init__(
        self,
        time_format: str | None = None,
        cadence_s: float | None = None,
        *,
        mtime: bool = False,
    ) -> None:
        """Choose how.

        Args:
            time_format: strptime pattern that is searched in the name; see `TimeFormat`.
            cadence_s: seconds between frames, for names that end in an index.
            mtime: take the modification time and leave the name alone.
        """
        self._cadence_s, self._mtime = cadence_s, mtime
        self._format = TimeFormat(time_format) if time_format else None
        self._indexed: bool | None = None

    @property
    def indexed(self) -> bool:
        """Whether the names turned out to end in an index."""
        return self._indexed is True

    @property
    def stated(self) -> bool:
        """Whether the user said how: by a pattern, or by the modification time."""
        return self._mtime or self._format is not None

    def time(self, path: Path, known: datetime | None = None) -> datetime:
        """When the frame in `path` was observed, UTC.

        Args:
            path: its file.
            known: its time by other means, where the name has no date; goes before an index.

        Raises:
            FrameError: the name holds no time, or several.
            UsageError: the name ends in an index and no cadence is known.
        """
        if self._mtime:
            return _modified(path)
        if self._format is not None:
            return self._format.time(path)
        if self._indexed is not True:
            found = time_of_path(path)
            if found is not None:
                self._indexed = False
                return EPOCH + timedelta(microseconds=int(found.astype("<M8[us]").astype(int)))
        if known is not None:
            return known
        index = index_of(path)
        if self._indexed is False or index is None:
            raise FrameError(
                f"the name {path.name} holds no time",
                expected="a date and a time (YYYYmmddHHMM[SS], ISO 8601, ...)"
                + (
                    " as in the first name"
                    if self._indexed is False
                    else ", or an index at its end"
                ),
                fix="--time-format PATTERN, or --mtime for the file's own time",
            )
        if self._cadence_s is None:
            raise UsageError(
                f"{path.name} ends in an index and no cadence is known",
                expected="the seconds between frames",
                fix="--cadence SECONDS, or --time-format PATTERN",
            )
        self._indexed = True
        try:
            return EPOCH + timedelta(seconds=index * self._cadence_s)
        except OverflowError as error:
            raise FrameError(
                f"the index in the name {path.name} is too large",
                expected="frames numbered from about 0",
                fix="--time-format PATTERN",
            ) from error


def _modified(path: Path) -> datetime:
    seconds = path.stat().st_mtime
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError) as error:  # some file systems keep any number
        raise FrameError(
            f"the modification time of {path.name} is no date: {seconds:g} s after 1970",
            expected="a year from 1 to 9999",
            fix=f"touch {path.name}, or --time-format PATTERN in place of --mtime",
        ) from error


def index_of(path: Path) -> int | None:
    """The number at the end of a file's name, before the suffix."""
    match = _INDEX.search(path.stem)
    return int(match.group(1)) if match else None
