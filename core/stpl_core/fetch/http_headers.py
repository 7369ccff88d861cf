"""Headers of HTTP that hold a time."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

_YEARS = range(1970, 2262)
"""Of a date that is believed; nanoseconds count no further."""


def http_date(text: str | None) -> datetime | None:
    """The time in a header such as Date or Last-Modified, UTC; None where it holds none."""
    try:
        found = parsedate_to_datetime(text or "")
        found = found.replace(tzinfo=found.tzinfo or timezone.utc).astimezone(timezone.utc)
        return found if found.year in _YEARS else None
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after_s(text: str | None, most_s: float = math.inf) -> float | None:
    """Seconds that a Retry-After header asks for, a number or a date.

    Args:
        text: the header; None where there is none.
        most_s: a longer wait is cut.

    Returns:
        0 where its date is over; None where it asks for nothing.
    """
    if text is not None and text.strip().isdecimal():
        return min(float(text), most_s)
    until = http_date(text)
    if until is None:
        return None
    return min(max((until - datetime.now(timezone.utc)).total_seconds(), 0.0), most_s)
