"""Times in HTTP headers, against what the standard library writes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from stpl_core.fetch.http_headers import http_date, retry_after_s

NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("hours", [0, 1, -7])
def test_a_date_of_any_zone_is_utc(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    assert http_date(format_datetime(NOON.astimezone(zone))) == NOON
    assert http_date("Sat, 31 Jan 2026 12:00:00 -0000") == NOON  # no zone, by RFC 5322


@pytest.mark.parametrize("text", [None, "", "soon", "-5", "Sat, 99 Jan 2026 12:00:00 GMT"])
def test_what_holds_no_time(text: str | None) -> None:
    assert http_date(text) is None
    assert retry_after_s(text) is None


def test_a_wait_as_number_or_date() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s(" 120 ", most_s=30) == 30
    now = datetime.now(timezone.utc)
    later, earlier = (format_datetime(now + timedelta(seconds=s)) for s in (6000, -600))
    wait = retry_after_s(later)
    assert wait is not None
    assert 3000 < wait <= 6000
    assert retry_after_s(later, most_s=30) == 30
    assert retry_after_s(earlier) == 0
