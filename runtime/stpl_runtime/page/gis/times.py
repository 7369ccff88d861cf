"""Which times a request asks for: an instant or an interval in ISO 8601."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.timing import time_from_text, utc_text

_SAME = timedelta(milliseconds=1)
"""Programs send thousandths of a second."""
_CODE = "InvalidDimensionValue"


def places_in(text: str, times: Sequence[datetime], name: str) -> list[int]:
    """Which of `times` are asked for, rising.

    Args:
        text: `2026-01-31T12:05:00Z`, or an interval `A/B` with `..` for an open end; a step
            after it (`A/B/PT5M`) is left to the times that there are.
        times: those that there are, rising.
        name: of the parameter, for the refusal.

    Raises:
        RefusedError: it is no time, or none of those that there are.
    """
    start, *rest = text.strip().split("/")
    first = _time(start, name, datetime.min.replace(tzinfo=timezone.utc))
    last = _time(rest[0], name, datetime.max.replace(tzinfo=timezone.utc)) if rest else first
    found = [n for n, time in enumerate(times) if first - time < _SAME and time - last < _SAME]
    if not found:
        there = f"{utc_text(times[0])} to {utc_text(times[-1])}" if times else "no times"
        raise RefusedError(f"{name}={quoted(text)}: there are {there}", _CODE)
    return found


def _time(text: str, name: str, open_end: datetime) -> datetime:
    """One end of an interval, or an instant; `+` comes as a blank out of addresses."""
    if text in ("..", ""):
        return open_end
    try:
        return time_from_text(text.strip().replace(" ", "+"))
    except ValueError as error:
        raise RefusedError(
            f"{name}={quoted(text)}: expected a time such as 2026-01-31T12:05:00Z", _CODE
        ) from error
