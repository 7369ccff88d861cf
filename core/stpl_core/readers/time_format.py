"""`--time-format`: the pattern of the time in a file's name, where the user states it."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

from stpl_core.errors import FrameError, UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "H": r"\d{2}",
    "I": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "f": r"\d{1,6}",
    "j": r"\d{3}",
    "b": r"[A-Za-z]{3}",
    "B": r"[A-Za-z]+",
    "p": r"[AaPp][Mm]",
    "s": r"\d{9,19}(?:\.\d{1,9})?",
    "z": r"(?:Z|[+-]\d{2}(?:[:_-]?\d{2})?)",
    "%": "%",
}
_SECONDS_DIGITS = 10


class TimeFormat:
    """A strptime pattern that is searched in a name.

    `%s` is seconds since 1970 (of more digits than 10: with their parts), `*` stands for anything,
    and a pattern with a `/` is searched in the whole path.
    """

    def __init__(self, text: str) -> None:
        """Read the pattern.

        Raises:
            UsageError: a directive that is not known, or none at all.
        """
        self.text = text
        parts = re.split(r"(%.?|\*)", text)
        found = [part[1:] for part in parts[1::2] if part != "*"]
        unknown = [letter for letter in found if letter not in _DIRECTIVES]
        if unknown or not set(found) - {"%"}:
            raise UsageError(
                f"--time-format {text!r} has "
                + (f"the directive %{unknown[0]}" if unknown else "no directive"),
                expected="a strptime pattern of "
                + " ".join(f"%{letter}" for letter in _DIRECTIVES),
                fix="--time-format %Y%m%d%H%M%S",
            )
        self._strptime = [part for part in parts[1::2] if part not in ("*", "%%")]
        self._pattern = re.compile("".join(_pieces(parts)))

    def time(self, path: Path) -> datetime:
        """The time in a file's name (without its suffix), UTC.

        Raises:
            FrameError: the pattern is not in the name.
        """
        text = path.with_suffix("").as_posix() if "/" in self.text else path.stem
        for match in self._pattern.finditer(text):
            with suppress(ValueError, OverflowError):  # no date, or beyond the years 1 to 9999
                return self._read(match)
        raise FrameError(
            f"the name {path.name} holds no time",
            expected=f"--time-format {self.text} in it",
            fix="another --time-format, with * for what differs, or leave it out",
        )

    def _read(self, match: re.Match[str]) -> datetime:
        digits = list(match.groups())
        if "%s" in self._strptime:
            text = digits[self._strptime.index("%s")].replace(".", "")
            seconds, parts = text[:_SECONDS_DIGITS], text[_SECONDS_DIGITS:]
            return EPOCH + timedelta(seconds=int(seconds), microseconds=int(f"{parts:0<6.6}"))
        if "%z" in self._strptime:  # +02 and +02-00 too
            at = self._strptime.index("%z")
            sign, number = digits[at][:1], re.sub(r"\D", "", digits[at])
            digits[at] = f"{sign}{number:0<4}" if number else digits[at]
        found = datetime.strptime("\n".join(digits), "\n".join(self._strptime))
        return found.replace(tzinfo=found.tzinfo or timezone.utc).astimezone(timezone.utc)


def _pieces(parts: list[str]) -> list[str]:
    """Regular expressions of the parts, each directive a group; a first `*` reaches far."""
    pieces = []
    for n, part in enumerate(parts):
        if n % 2 == 0:
            pieces.append(re.escape(part))
        elif part == "*":
            pieces.append(".*" if not any(parts[:n]) else ".*?")
        elif part == "%%":
            pieces.append("%")
        else:
            pieces.append(f"({_DIRECTIVES[part[1:]]})")
    return pieces


@lru_cache(maxsize=64)
def time_format(text: str) -> TimeFormat:
    """The pattern `text`, read once.

    Raises:
        UsageError: see `TimeFormat`.
    """
    return TimeFormat(text)
