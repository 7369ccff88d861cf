"""Times in file names: the one parser of `inspect`, `predict`, `stream` and every reader.

Understood without help: 8 digits of a date, or 7 of a year and its day, with 4, 6 or 9 digits of a
time beside or after them; ISO 8601 with `-`, `_`, `:` or `T`; AM and PM; an offset (`Z`, `+0200`);
seconds since 1970 and their parts; `s...e...c` as satellites write it. Words before a stamp say
which one counts (`valid`, `start`) and which do not (`created`, `end`). What may mean two things is
asked for: `--time-format`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.readers.time_format import EPOCH, TimeFormat


@dataclass(frozen=True)
class Stamp:
    """A time found in a name."""

    time: datetime
    """UTC."""
    text: str
    """As it stands in the name."""
    time_format: str
    """The strptime pattern that reads it."""
    start: int
    label: str = ""
    """The word before it, lower case."""


_ZONE = (
    r"(?P<zone>Z(?![a-z])|[ _-]?(?:UTC|GMT)(?![A-Za-z])|[-+]\d{2}[:_-]?\d{2}(?!\d)"
    r"|\+\d{2}(?!\d)|(?<=:\d\d)-\d{2}(?!\d))?"
)
_STAMP = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d{2})"
    r"(?:(?P<ds>[-_.])(?P<month>\d{2})(?P=ds)(?P<day>\d{2})|(?P<month_>\d{2})(?P<day_>\d{2})"
    r"|-(?P<doy_>\d{3})(?=T\d)|(?P<doy>\d{3}))"
    r"(?:(?P<ts>[-_. ]?[STst]|[-_. ]?)"
    r"(?P<hour>\d{2})(?:(?P<cs>[-_:.hH])(?P<minute>\d{2})(?:(?P<ms>[-_:.mM])(?P<second>\d{2}))?"
    r"|(?P<minute_>\d{2})(?:(?P<second_>\d{2})(?P<fraction>\d{6}|\d{3}|\d)?)?)"
    r"(?:(?<=\d{2})\.(?P<decimals>\d{3,9}))?(?P<half>[ _-]?[AaPp][Mm](?![A-Za-z]))?"
    r"|T(?P<hour_>\d{2})(?=Z))?" + _ZONE + r"(?!\d)"
)
_RUN = re.compile(r"(?<!\d)(\d{10}(?:\d{3}|\d{6}|\d{9})?)(?:\.(\d{1,9}))?(?!\d)")
_CLOCK_BEFORE = re.compile(
    r"(?<!\d)((?:[01]\d|2[0-3])([-_:.hH]?)[0-5]\d(?:\2[0-5]\d)?)[Zz]?([-_T. ])$"
)
_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,7}$")
_SATELLITE = re.compile(r"(?<![A-Za-z])s\d{14}_e\d{14}")
_LOCAL = re.compile(
    r"[-_ ]?(CES?T|MES?Z|[ECMPH][SD]T|AK[SD]T|[JKIB]ST|MSK|WES?T|EES?T|AE[SD]T|NZ[SD]T|SGT|HKT|PKT|"
    r"SAST|WIB|LT|local)(?![A-Za-z])"
)
_NOT_OBSERVED = re.compile(
    r"(?:created?|creation|processed|production|produced|run|init|issued?|ref|reference|base|"
    r"expir\w*|end|stop|until|to|upload\w*|received|[ec])"
)
_OBSERVED = re.compile(r"(?:valid|vt|obs|observed|nominal|start|begin|from|[asd])")
_LONGEST = 4096
"""Of a name, or of a text that states a time."""
_FIRST_SECOND, _LAST_SECOND = 1_100_000_000, 2_000_000_000
"""Ten digits between these may be seconds since 1970: from 2004 to 2033."""
_LAST_OF_PARTS = 1_900_000_000
"""Sixteen digits from here on may be a date in the 20th century."""


def stamps_in(name: str) -> list[Stamp]:
    """Every time that a name may hold, in the order of the name.

    Raises:
        FrameError: a time of a zone that is only named, such as CEST.
    """
    bare = _without_suffix(name)
    found = list(_dated(bare))
    if not found:
        found = list(_runs(bare))
    if not found:
        found = list(_dates_alone(bare))
    return found


def one_stamp(name: str) -> Stamp | None:
    """The time of a name; None where there is none.

    Raises:
        FrameError: there are several, and no word says which counts; or one of a zone that is only
            named.
    """
    found = stamps_in(name)
    if len(found) > 1:
        kept = [stamp for stamp in found if not _NOT_OBSERVED.fullmatch(stamp.label)] or found
        found = [stamp for stamp in kept if _OBSERVED.fullmatch(stamp.label)] or kept
    if len({stamp.time for stamp in found}) > 1:
        raise _ambiguous(name, found)
    return found[0] if found else None


def time_in_name(name: str) -> np.datetime64 | None:
    """The time of a name, UTC to the nanosecond; None where there is none.

    Raises:
        FrameError: see `one_stamp`.
    """
    stamp = one_stamp(name) if len(name) <= _LONGEST else None
    return None if stamp is None else as_datetime64(stamp.time)


def year_and_day(digits: str) -> np.datetime64 | None:
    """The time of `YYJJJHHMM`: year, day of the year, hour, minute; None where it is none."""
    made = _by_format(digits, "%y%j%H%M")
    return None if made is None else as_datetime64(made[0])


def as_datetime64(time: datetime) -> np.datetime64:
    """The same moment, UTC (which a time without a zone is), to the nanosecond."""
    aware = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return np.datetime64(aware.astimezone(timezone.utc).replace(tzinfo=None), "ns")


def _without_suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    for _ in range(2):
        last = _SUFFIX.sub("", last)
    return last


def _dated(bare: str) -> Iterator[Stamp]:
    satellite = _SATELLITE.search(bare) is not None
    for match in _STAMP.finditer(bare):
        parts = match.groupdict()
        if not (parts["hour"] or parts["hour_"]):
            continue
        digits = re.sub(r"\D", "", match.group())
        if satellite and len(digits) == 14:
            made = _by_format(digits[:13], "%Y%j%H%M%S")
        else:
            made = _from_parts(parts)
            if made is None and re.fullmatch(r"\d{14}", match.group()):
                made = _by_format(digits[:13], "%Y%j%H%M%S")
        if made is None:
            continue
        time, pattern = made
        _refuse_local(bare, match, pattern)
        label = _label(bare, match.start())
        zone = parts["zone"] or ""
        offset = _offset(zone)
        if offset is None or _may_be_no_offset(zone, parts):
            # The end of a range, or a number; where it may be an offset too, both are shown.
            yield Stamp(time, match.group().removesuffix(zone), pattern, match.start(), label)
        if offset is not None:
            yield Stamp(
                time - offset,
                match.group(),
                pattern + ("%z" if offset else ""),
                match.start(),
                label,
            )


def _may_be_no_offset(zone: str, parts: dict[str, str | None]) -> bool:
    """Whether what stands after a time may be another number than an offset."""
    dated = "T" in (parts["ts"] or "")
    if re.fullmatch(r"[-+]\d\d", zone):
        return not dated and parts["cs"] != ":"
    if zone.startswith("-"):
        return re.fullmatch(r"-\d\d[_-]\d\d", zone) is not None or not (dated or ":" in zone)
    return False


def _from_parts(parts: dict[str, str | None]) -> tuple[datetime, str] | None:
    """Date and time of a match, and their pattern; None where the digits are no date."""
    minute, second = parts["minute"] or parts["minute_"], parts["second"] or parts["second_"]
    hour, fraction = parts["hour"] or parts["hour_"], parts["fraction"] or ""
    date_mark, clock_mark = parts["ds"] or "", parts["cs"] or ""
    if len(fraction) == 1 and not (parts["doy"] or (parts["ts"] or "").endswith("t")):
        return None
    if parts["doy"]:
        pattern, digits = "%Y%j", f"{parts['year']}{parts['doy']}"
    elif parts["doy_"]:
        pattern, digits = "%Y-%j", f"{parts['year']}-{parts['doy_']}"
    else:
        month, day = parts["month"] or parts["month_"], parts["day"] or parts["day_"]
        pattern = date_mark.join(("%Y", "%m", "%d"))
        digits = date_mark.join((str(parts["year"]), str(month), str(day)))
    marks = ("", clock_mark, parts["ms"] or "")
    clock, clock_pattern = "", ""
    for mark, part, directive in zip(
        marks, (hour, minute, second), ("%H", "%M", "%S"), strict=True
    ):
        if part:
            clock, clock_pattern = f"{clock}{mark}{part}", f"{clock_pattern}{mark}{directive}"
    gap = parts["ts"] or ("T" if parts["hour_"] else "")
    pattern, digits = f"{pattern}{gap}{clock_pattern}", f"{digits}{gap}{clock}"
    if fraction and second:
        # Tenths are left out: satellites round them anyway.
        pattern, digits = (
            (f"{pattern}%f", digits + fraction) if len(fraction) > 1 else (pattern, digits)
        )
    elif parts["decimals"] and second:
        pattern, digits = f"{pattern}.%f", f"{digits}.{parts['decimals'][:6]}"
    half = parts["half"] or ""
    if half and 1 <= int(str(hour)) <= 12:
        pattern = f"{pattern.replace('%H', '%I')}{half[:-2]}%p"
        digits += half
    return _by_format(digits, pattern)


def _by_format(digits: str, pattern: str) -> tuple[datetime, str] | None:
    try:
        return datetime.strptime(digits, pattern).replace(tzinfo=timezone.utc), pattern
    except ValueError:
        return None


def _offset(zone: str) -> timedelta | None:
    """None where it is none that the Earth has."""
    digits = re.sub(r"\D", "", zone)
    if not digits:
        return timedelta(0)
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 14 or minutes not in (0, 15, 30, 45):
        return None
    return timedelta(hours=hours, minutes=minutes) * (-1 if zone.startswith("-") else 1)


def _runs(bare: str) -> Iterator[Stamp]:
    """Ten digits or more: hours, years of two digits, or seconds since 1970 and their parts."""
    for match in _RUN.finditer(bare):
        digits, decimals = match.groups(default="")
        found = []
        seconds = int(digits[:10])
        last = _LAST_SECOND if len(digits) <= 13 else _LAST_OF_PARTS
        if _FIRST_SECOND <= seconds < last:
            parts = digits[10:] or decimals
            time = EPOCH + timedelta(seconds=seconds, microseconds=int(f"{parts:0<6.6}"))
            found.append((time, "%s"))
        if len(digits) == 10:
            patterns = ["%y%m%d%H%M", *(["%Y%m%d%H"] if digits[:2] in ("19", "20") else [])]
            found += [made for pattern in patterns if (made := _by_format(digits, pattern))]
        label = _label(bare, match.start())
        for time, pattern in found:
            yield Stamp(time, digits, pattern, match.start(), label)


def _dates_alone(bare: str) -> Iterator[Stamp]:
    """A date without a time, where no other number follows: midnight."""
    for match in _STAMP.finditer(bare):
        parts = match.groupdict()
        month, day = parts["month"] or parts["month_"], parts["day"] or parts["day_"]
        if parts["hour"] or not month or parts["zone"] or re.search(r"\d", bare[match.end() :]):
            continue
        made = _by_format(f"{parts['year']}{month}{day}", "%Y%m%d")
        if made is not None:
            mark = parts["ds"] or ""
            pattern = mark.join(("%Y", "%m", "%d"))
            yield Stamp(made[0], match.group(), pattern, match.start(), _label(bare, match.start()))
            yield from _with_clock_before(bare, match, pattern)


def _with_clock_before(bare: str, date: re.Match[str], pattern: str) -> Iterator[Stamp]:
    """The date with the number right before it as its time of the day, if that may be one."""
    before = _CLOCK_BEFORE.search(bare[: date.start()])
    if before is None:
        return
    text, mark, gap = before.groups()
    clock = mark.join(("%H", "%M", "%S")[: len(re.sub(r"\D", "", text)) // 2])
    zone = bare[before.end(1) : before.start(3)]
    whole = f"{clock}{zone}{gap}{pattern}"
    made = _by_format(bare[before.start(1) : date.end()], whole)
    if made is not None:
        start = before.start(1)
        yield Stamp(made[0], bare[start : date.end()], whole, start, _label(bare, start))


def _label(bare: str, start: int) -> str:
    word = re.search(r"(?<![A-Za-z\d])([A-Za-z]+)[-_=. ]?$", bare[:start])
    return word[1].lower() if word else ""


def _refuse_local(bare: str, match: re.Match[str], pattern: str) -> None:
    zone = _LOCAL.match(bare, match.end())
    if zone is None or match["zone"] or not zone[1]:
        return
    raise FrameError(
        f"the name {bare} has a time of the zone {zone[1]}",
        expected="UTC, or an offset such as +0200",
        fix=f"rename it, or --time-format '{pattern}' if it is UTC after all",
    )


def _ambiguous(name: str, found: list[Stamp]) -> FrameError:
    last = name.rpartition("/")[2]
    choices = [
        f"--time-format '{_pattern_for(stamp, last)}' for {stamp.time:%Y-%m-%dT%H:%M:%SZ}"
        for stamp in found
    ]
    return FrameError(
        f"the name {last} may mean several times",
        expected="one, or a word that says which counts (valid, start; not created, end)",
        fix=", ".join(dict.fromkeys(choices)),
    )


def _pattern_for(stamp: Stamp, name: str) -> str:
    """What `--time-format` has to be, so that it finds this time in a name of several."""
    before = name[: stamp.start].replace("%", "%%").replace("*", "")
    longer = (before[-n:] + stamp.time_format for n in range(1, len(before) + 1))
    for pattern in (stamp.time_format, f"*{stamp.time_format}", *longer):
        with suppress(FrameError):
            if TimeFormat(pattern).time(Path(name)) == stamp.time:
                return pattern
    return stamp.time_format
