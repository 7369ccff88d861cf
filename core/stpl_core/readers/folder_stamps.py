"""Times that stand in folders and name together: `2024/06/01/1205.png`, `20240601/12/05.npy`.

The date is that of the folders right above the file, the time of the day the one number of 4 or 6
digits in the name (or the folder of the hour and two digits of the minute). A name with a whole
time of its own goes before; if the folders have another date by more than a day, that is asked for.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from stpl_core.errors import FrameError
from stpl_core.readers.stamps import as_datetime64, one_stamp

_YEAR = r"(?:19|20)\d\d"
_DATES = (
    (rf"({_YEAR})/(\d\d)/(\d\d)", "%Y/%m/%d"),
    (rf"({_YEAR})-(\d\d)-(\d\d)", "%Y-%m-%d"),
    (rf"({_YEAR})_(\d\d)_(\d\d)", "%Y_%m_%d"),
    (rf"({_YEAR})\.(\d\d)\.(\d\d)", "%Y.%m.%d"),
    (rf"({_YEAR})(\d\d)(\d\d)", "%Y%m%d"),
    (rf"({_YEAR})/(\d\d)(\d\d)", "%Y/%m%d"),
    (rf"({_YEAR})(\d\d)/(\d\d)", "%Y%m/%d"),
    (rf"({_YEAR})/(\d\d\d)", "%Y/%j"),
    (rf"({_YEAR})(\d\d\d)", "%Y%j"),
)
_CLOCK = re.compile(r"(?<!\d)(\d{2})([-_:hH]?)(\d{2})(?:\2(\d{2}))?(?!\d)")
_A_DAY = timedelta(days=1)


def time_of_path(path: Path) -> np.datetime64 | None:
    """The time of a file by its name, or by its folders and its name; None where there is none.

    Raises:
        FrameError: the name may mean several times, or the folders another day than the name.
    """
    stamp = one_stamp(path.name)
    dated = _date_above(path)
    if stamp is None:
        found = None if dated is None else _with_clock(path, *dated)
        return None if found is None else as_datetime64(found)
    if dated is not None and not _is_near(stamp.time.replace(tzinfo=None), dated[0]):
        raise FrameError(
            f"{path} has the time {stamp.text} in its name, in a folder of {dated[0]:%Y-%m-%d}",
            expected="one day",
            fix=f"--time-format '{stamp.time_format}' takes the time in the name",
        )
    return as_datetime64(stamp.time)


def _is_near(time: datetime, day: datetime) -> bool:
    """Whether a time is of this day somewhere on Earth: of the day itself, or of one beside it."""
    return day - _A_DAY <= time < day + 2 * _A_DAY


def _date_above(path: Path) -> tuple[datetime, str] | None:
    """The date of the folders above, and what stands between it and the name."""
    folders = path.absolute().parent.as_posix()
    for pattern, form in _DATES:
        match = re.search(rf"(?:^|/)({pattern})((?:/\d\d)?)$", folders)
        if match is None:
            continue
        try:
            return datetime.strptime(match[1], form), match.groups()[-1]
        except ValueError:
            continue
    return None


def _with_clock(path: Path, day: datetime, between: str) -> datetime | None:
    """The day and the time of the day in the name; None where there is none, or several."""
    stem = path.name.partition(".")[0]
    numbers = re.findall(r"\d+", stem)
    if between:
        minutes = [number for number in numbers if len(number) in (2, 4)]
        if len(minutes) != 1 or len(numbers) != 1:
            return None
        return _at(day, between[1:] + minutes[0])
    found = [
        "".join(part or "" for part in (match[1], match[3], match[4]))
        for match in _CLOCK.finditer(stem)
    ]
    if len(found) != 1 or any(len(number) > 6 for number in numbers):
        return None
    return _at(day, found[0])


def _at(day: datetime, digits: str) -> datetime | None:
    hour, minute, second = int(digits[:2]), int(digits[2:4]), int(digits[4:6] or 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    return day + timedelta(hours=hour, minutes=minute, seconds=second)
