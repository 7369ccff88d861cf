"""Times as CF writes them: numbers since a date in any calendar, CDO's days, and texts."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.reader import Times
from stpl_core.readers.libraries import reads_with

if TYPE_CHECKING:
    import xarray as xr

_SINCE = re.compile(r"\s*([A-Za-z]+)\s+since\s+\S", re.IGNORECASE)
_DATE = re.compile(
    r"(?:(?P<year>[-+]?\d{1,4}-|\d{4}/)(?P<month>\d{1,2})[-/](?P<day>\d{1,2})"
    r"|(?P<year_>\d{4})(?P<month_>\d{2})(?P<day_>\d{2}))"
    r"(?:(?:[T ]\s*|\s+)(?:(?P<hour>\d{1,2})"
    r"(?::(?P<minute>\d{1,2})(?::(?P<second>\d{1,2}(?:\.\d*)?))?)?"
    r"|(?P<hour_>\d{2})(?P<minute_>\d{2})(?P<second_>\d{2})?))?"
    r"\s*(?:Z|\(?(?:UTC|GMT)\)?|00?:?0{0,2}|(?P<sign>[-+])(?P<zh>\d{1,2})(?::?(?P<zm>\d{2}))?)?",
    re.IGNORECASE,
)
"""What stands after `since`: a date, a time of day, a zone."""
_CDO = "day as %Y%m%d.%f"
_US = {
    "nanosecond": 1e-3,
    "ns": 1e-3,
    "microsecond": 1.0,
    "us": 1.0,
    "millisecond": 1e3,
    "msec": 1e3,
    "ms": 1e3,
    "second": 1e6,
    "sec": 1e6,
    "s": 1e6,
    "minute": 6e7,
    "min": 6e7,
    "hour": 3.6e9,
    "hr": 3.6e9,
    "h": 3.6e9,
    "day": 8.64e10,
    "d": 8.64e10,
    "week": 6.048e11,
}
"""Microseconds in a unit of time."""
_TEXTS = ("time", "times", "datetime", "date_time", "valid_time")
"""Names, lower case, of variables whose texts are times."""
_MOST = 9e36
"""Numbers from here on are netCDF's default fill value: nobody wrote a time."""
_STANDARD = ("standard", "gregorian", "proleptic_gregorian", "")
_CALENDARS = (
    *(*_STANDARD, "noleap", "365_day", "360_day", "all_leap", "366_day", "julian"),
    "tai",
)
_ONE_CALENDAR = 1700
"""From this year on the standard calendars agree."""
_FIRST_YEAR, _LAST_YEAR = 1678, 2261
"""Those that 64 bits of nanoseconds hold whole."""


def is_clock(variable: xr.Variable | xr.DataArray, name: str = "") -> bool:
    """Whether a variable is a time: numbers since a date, or texts that are called time.

    Args:
        variable: any.
        name: its name; of texts it counts (`Times` of WRF has no attributes).
    """
    if variable.dtype.kind == "M":
        return True
    units = variable.attrs.get("units")
    if isinstance(units, str) and (_SINCE.match(units) or units.strip() == _CDO):
        return variable.dtype.kind in "iuf"
    named = variable.attrs.get("standard_name") == "time" or variable.attrs.get("axis") == "T"
    return variable.dtype.kind in "OSU" and (named or name.lower() in _TEXTS)


def duration_us(variable: xr.Variable | xr.DataArray) -> NDArray[np.int64] | None:
    """Microseconds of a variable in a unit of time (lead times); None where it has none."""
    if variable.dtype.kind == "m":
        return np.asarray(variable.values.astype("timedelta64[us]").astype(np.int64))
    scale = _US.get(_singular(str(variable.attrs.get("units", ""))))
    if scale is None or variable.dtype.kind not in "iuf":
        return None
    return np.round(variable.values.astype(np.float64) * scale).astype(np.int64)


def unit_s(variable: xr.Variable | xr.DataArray) -> float | None:
    """Seconds in the unit of a clock and of its bounds; None where it is none of numbers."""
    match = _SINCE.match(str(variable.attrs.get("units", "")))
    scale = _US.get(_singular(match[1])) if match else None
    return None if scale is None else scale / 1e6


def decoded(variable: xr.Variable | xr.DataArray, where: str) -> Times:
    """The times of a clock, any shape.

    Raises:
        FrameError: a time that is missing, or of a unit or calendar that is not understood.
    """
    numbers = variable.values
    if numbers.dtype.kind == "M":
        return np.asarray(numbers.astype("datetime64[ns]"))
    if numbers.dtype.kind in "OSU":
        return times_of_texts(numbers, where)
    least = np.iinfo(np.int64).min  # NaT, as NumPy and xarray store it
    missing = numbers == least if numbers.dtype == np.int64 else ~(np.abs(numbers) < _MOST)
    numbers = numbers.astype(np.float64)
    if missing.any():
        raise FrameError(
            f"{where} has a time that is missing (NaT)",
            expected="a time for every frame",
            fix="set it",
        )
    units = str(variable.attrs["units"]).strip()
    calendar = str(variable.attrs.get("calendar", "standard")).lower()
    if units == _CDO:
        days = np.floor(numbers).astype(np.int64)
        texts = np.array([f"{n // 10000:04}-{n // 100 % 100:02}-{n % 100:02}" for n in days.flat])
        seconds = np.round((numbers - days) * 86400)  # as fine as such numbers are
        midnight = times_of_texts(texts.reshape(days.shape), where)
        return np.asarray(midnight + _us_to_delta(seconds * 1e6))
    try:
        return _since(numbers, units, calendar)
    except (ArithmeticError, ValueError, KeyError) as error:
        name = getattr(variable, "name", "time")
        wrong, right = "units", "'seconds since 2024-06-01' FILE, with the true unit and date"
        if calendar not in _CALENDARS:
            wrong, right = "calendar", "standard FILE, or with the true calendar"
        raise FrameError(
            f"{where} has the time unit {units!r} in the calendar {calendar!r}: {error}",
            expected="seconds, minutes, hours or days since a date, as CF has them",
            fix=f"ncatted -a {wrong},{name},o,c,{right}, or, of a file of one frame, "
            "--time-format PATTERN for the time in its name",
        ) from error


def _since(numbers: NDArray[np.float64], units: str, calendar: str) -> Times:
    with reads_with("netcdf"):
        import cftime
    match = _SINCE.match(units)
    assert match is not None, "is_clock"
    since, offset = _reference(units[match.end() - 1 :])
    scale = _US.get(_singular(match[1]))
    plain = f"{match[1]} since {since}"
    late = not since.startswith("-") and int(since.partition("-")[0]) >= _ONE_CALENDAR
    if scale is not None and calendar in _STANDARD and late:
        reference = cftime.num2date(0, f"days since {since}", calendar="proleptic_gregorian")
        start = np.datetime64(_label(reference), "us") - offset
        return _in_ns(start + _us_to_delta(np.round(numbers * scale)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cftime.CFWarning)  # of days since 4713 BC
        dates = cftime.num2date(
            numbers, plain, calendar=calendar or "standard", only_use_cftime_datetimes=True
        )
    labels = [
        np.datetime64(_label(date), "us") - offset for date in np.ravel(np.asarray(dates, object))
    ]
    return _in_ns(np.array(labels, "datetime64[us]").reshape(numbers.shape))


def _reference(text: str) -> tuple[str, np.timedelta64]:
    """The date that is counted from, as cftime reads it, and its zone's offset from UTC.

    Raises:
        ValueError: anything more stands there, such as the name of a zone: a library that reads as
            far as it can would be hours off.
    """
    found = _DATE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text.strip()!r} is not understood")
    year, month, day = (found[part] or found[f"{part}_"] for part in ("year", "month", "day"))
    year = year.rstrip("/") if "/" in year else year.removesuffix("-")
    hour, minute = (found[part] or found[f"{part}_"] or "0" for part in ("hour", "minute"))
    second = found["second"] or found["second_"] or "0"
    offset = np.timedelta64(0, "us")
    if found["sign"]:
        away = np.timedelta64(60 * int(found["zh"]) + int(found["zm"] or 0), "m")
        offset = -away if found["sign"] == "-" else away
    if not abs(offset) <= np.timedelta64(14, "h"):
        raise ValueError(f"{text.strip()!r} has a zone that the Earth has not")
    whole, _, part = second.partition(".")
    return f"{year}-{month}-{day} {hour}:{minute}:{whole or 0}.{part or 0}", offset


def _in_ns(times: NDArray[np.datetime64]) -> Times:
    """The same to the nanosecond.

    Raises:
        OverflowError: a time before 1678 or after 2261, which would come out as another.
    """
    years = times.astype("datetime64[Y]").astype(np.int64) + 1970
    if ((years < _FIRST_YEAR) | (years > _LAST_YEAR)).any():
        raise OverflowError(f"a time in the year {int(years.ravel()[0])}")
    return np.asarray(times.astype("datetime64[ns]"))


def _us_to_delta(microseconds: NDArray[np.float64]) -> Any:
    if (np.abs(microseconds) >= 2.0**63).any():
        raise OverflowError("a time beyond 292,000 years")
    return microseconds.astype(np.int64).astype("timedelta64[us]")


def _label(date: Any) -> str:
    """A date of any calendar by its name: 1 June is 1 June."""
    return (
        f"{date.year:04}-{date.month:02}-{date.day:02}T{date.hour:02}:{date.minute:02}:"
        f"{date.second:02}.{date.microsecond:06}"
    )


def _singular(unit: str) -> str:
    word = unit.strip().lower()
    return word if word in _US else word.rstrip("s")


def _time_of(word: str) -> np.datetime64:
    """A text as a time; digits alone are `YYYYMMDD[HH[MM[SS]]]`.

    Raises:
        ValueError: it is none, or not whole.
        OverflowError: it is none that 64 bits hold.
    """
    apart = re.sub(r"^(\d{8})(?=\d\d)", r"\1T", word.strip("\0 ")).replace("_", "T")
    text, offset = _reference(apart)
    date, _, clock = text.partition(" ")
    year, month, day = (int(part) for part in date.rsplit("-", 2))
    hour, minute, second = clock.split(":")
    label = f"{year:04}-{month:02}-{day:02}T{int(hour):02}:{int(minute):02}:{float(second):09.6f}"
    return np.datetime64(_in_ns(np.array([np.datetime64(label, "us") - offset]))[0])


def times_of_texts(texts: NDArray[Any], where: str) -> Times:
    """Times of texts in ISO 8601, any shape.

    Raises:
        FrameError: one is none.
    """
    made = []
    for text in texts.ravel():
        word = (text.decode() if isinstance(text, bytes) else str(text)).strip()
        try:
            made.append(_time_of(word))
        except (ValueError, ArithmeticError) as error:
            raise FrameError(
                f"{where} has the time {word!r}", expected="ISO 8601, UTC", fix="repair the file"
            ) from error
    return np.array(made, "datetime64[ns]").reshape(texts.shape)
