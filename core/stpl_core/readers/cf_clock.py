"""Times as CF writes them: numbers since a date in any calendar, CDO's days, and texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.reader import Times
from stpl_core.readers.libraries import reads_with

if TYPE_CHECKING:
    import xarray as xr

_SINCE = re.compile(r"\s*([A-Za-z]+)\s+since\s+\S", re.IGNORECASE)
_CDO = "day as %Y%m%d.%f"
_US = {
    "microsecond": 1.0,
    "millisecond": 1e3,
    "msec": 1e3,
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
}
"""Microseconds in a unit of time."""
_STANDARD = ("standard", "gregorian", "proleptic_gregorian", "")
_ONE_CALENDAR = 1700
"""From this year on the standard calendars agree."""


def is_clock(variable: xr.Variable | xr.DataArray) -> bool:
    """Whether a variable is a time: numbers since a date, or texts that are called time."""
    if variable.dtype.kind == "M":
        return True
    units = variable.attrs.get("units")
    if isinstance(units, str) and (_SINCE.match(units) or units.strip() == _CDO):
        return variable.dtype.kind in "iuf"
    named = variable.attrs.get("standard_name") == "time" or variable.attrs.get("axis") == "T"
    return variable.dtype.kind in "OSU" and named


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
        return _from_texts(numbers, where)
    least = np.iinfo(np.int64).min  # NaT, as NumPy and xarray store it
    missing = numbers == least if numbers.dtype == np.int64 else ~np.isfinite(numbers)
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
        midnight = _from_texts(texts.reshape(days.shape), where)
        return np.asarray(midnight + _us_to_delta(seconds * 1e6))
    try:
        return _since(numbers, units, calendar)
    except (ArithmeticError, ValueError, KeyError) as error:
        raise FrameError(
            f"{where} has the time unit {units!r} in the calendar {calendar!r}: {error}",
            expected="seconds, minutes, hours or days since a date, as CF has them",
            fix="--time-format PATTERN takes the time of a file's one frame from its name",
        ) from error


def _since(numbers: NDArray[np.float64], units: str, calendar: str) -> Times:
    with reads_with("netcdf"):
        import cftime
    match = _SINCE.match(units)
    assert match is not None, "is_clock"
    scale = _US.get(_singular(match[1]))
    plain = _without_zone(units)
    if scale is not None and calendar in _STANDARD:
        reference = cftime.num2date(0, plain, calendar="proleptic_gregorian")
        if reference.year >= _ONE_CALENDAR:
            start = np.datetime64(_label(reference), "us")
            made = start + _us_to_delta(np.round(numbers * scale))
            return np.asarray(made.astype("datetime64[ns]"))
    dates = cftime.num2date(
        numbers, plain, calendar=calendar or "standard", only_use_cftime_datetimes=True
    )
    labels = [np.datetime64(_label(date), "ns") for date in np.ravel(np.asarray(dates, object))]
    return np.array(labels, "datetime64[ns]").reshape(numbers.shape)


def _without_zone(units: str) -> str:
    plain = units.rstrip()
    return plain[:-3].rstrip() if plain[-3:].upper() in ("UTC", "GMT") else plain


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


def _from_texts(texts: NDArray[Any], where: str) -> Times:
    made = []
    for text in texts.ravel():
        word = (text.decode() if isinstance(text, bytes) else str(text)).strip()
        plain = re.sub(r"(?:Z|\s?UTC|\+00:?00)$", "", word).rstrip().replace("_", "T")
        try:
            made.append(np.datetime64(plain, "ns"))
        except ValueError as error:
            raise FrameError(
                f"{where} has the time {word!r}", expected="ISO 8601, UTC", fix="repair the file"
            ) from error
    return np.array(made, "datetime64[ns]").reshape(texts.shape)
