"""What `--source-option NAME=VALUE` says, and `--sink WORD,NAME=VALUE:`; lengths of time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import cast

from stpl_core.errors import UsageError
from stpl_core.readers.fit import Resize
from stpl_runtime.plugins import check_options
from stpl_runtime.timing import time_from_text

RESIZES = ("none", "area", "crop")


class Options:
    """The options of one source or sink; refuses those it does not have."""

    def __init__(
        self,
        what: str,
        given: Mapping[str, str],
        known: Iterable[str],
        flag: str = "--source-option ",
    ) -> None:
        """Check the names.

        Args:
            what: the source or sink, for messages.
            given: name -> value.
            known: every name it has.
            flag: what one types before NAME=VALUE.

        Raises:
            UsageError: a name that it does not have.
        """
        check_options(what, given, known)
        self._what, self._given, self._flag = what, given, flag

    def text(self, name: str, default: str = "") -> str:
        """A word."""
        return self._given.get(name, default)

    def number(
        self, name: str, default: float, *, least: float = 0.0, most: float = math.inf
    ) -> float:
        """A finite number of at least `least` and at most `most`.

        Raises:
            UsageError: it is not one.
        """
        if name not in self._given:
            return default
        try:
            value = float(self._given[name])
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            expected = f"a number of at least {least:g}"
            if math.isfinite(most):
                expected = f"a number from {least:g} to {most:g}"
            raise self._wrong(name, expected, f"{default or least:g}")
        return value

    def flag(self, name: str) -> bool:
        """Yes or no; no where it is not given.

        Raises:
            UsageError: neither.
        """
        value = self._given.get(name, "no").lower()
        if value in ("yes", "true", "1", "on"):
            return True
        if value in ("no", "false", "0", "off"):
            return False
        raise self._wrong(name, "yes or no", "yes")

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of some words.

        Raises:
            UsageError: another word.
        """
        value = self._given.get(name, default)
        if value not in choices:
            raise self._wrong(name, f"one of {', '.join(choices)}", default)
        return value

    def resize(self, default: Resize) -> Resize:
        """The option `resize`, for frames of another size than the model's."""
        return cast(Resize, self.choice("resize", RESIZES, default))

    def time(self, name: str) -> datetime | None:
        """A time in ISO 8601, UTC where it has no zone; None where it is not given.

        Raises:
            UsageError: it is not one.
        """
        if name not in self._given:
            return None
        try:
            return time_from_text(self._given[name])
        except ValueError:
            raise self._wrong(name, "a time", "2026-01-31T12:00:00Z") from None

    def _wrong(self, name: str, expected: str, example: str) -> UsageError:
        return UsageError(
            f"{self._what}: {self._flag}{name}={self._given[name]}",
            expected=expected,
            fix=f"{self._flag}{name}={example}",
        )


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(option: str, text: str) -> float:
    """A length of time such as `90s`, `30m`, `12h` or `7d`, in seconds.

    Raises:
        UsageError: it is not one; names `option`.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip().lower())
    if found is None or float(found[1]) <= 0:
        raise UsageError(
            f"{option} {text}",
            expected="a number above 0 with s, m, h or d after it",
            fix=f"{option} 7d",
        )
    return float(found[1]) * _SECONDS[found[2]]


def pairs(option: str, texts: Sequence[str]) -> Mapping[str, str]:
    """Read `NAME=VALUE` words.

    Raises:
        UsageError: one has no name or no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"{option} {text}", expected="NAME=VALUE", fix=f"{option} {name or 'NAME'}=VALUE"
            )
        if name in found:
            raise UsageError(
                f"{option} {name} is given twice", expected="each name once", fix="leave one out"
            )
        found[name] = value
    return found
