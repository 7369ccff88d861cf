"""Bad frames of one kind are logged once, then counted: a source gone wrong must not fill a log."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KINDS = 16
"""Kinds that are kept apart; what comes after is counted as one more."""
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


@dataclass
class Fault:
    """One kind of bad frame."""

    first: str
    """The first of them: what it is called, and what is wrong."""
    more: int = 0
    """How many came after it."""


class Faults:
    """The bad frames of a stream, by what is wrong with them."""

    def __init__(self) -> None:
        """Start with none."""
        self._kinds: dict[str, Fault] = {}

    def add(self, source_id: str, reason: str) -> str | None:
        """Count a bad frame.

        Args:
            source_id: what it is called.
            reason: what is wrong; two that differ in names and numbers only are of one kind.

        Returns:
            The line to log; None where one of this kind was logged before.
        """
        kind = _NUMBER.sub("#", reason.replace(source_id, "") if source_id else reason)
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            kind = "another"
        if kind in self._kinds:
            self._kinds[kind].more += 1
            return None
        named = reason if source_id in reason else f"{source_id}: {reason}"
        self._kinds[kind] = Fault(named)
        return f"bad frame {named}"

    def seen(self) -> tuple[Fault, ...]:
        """Each kind, in the order of their first frames."""
        return tuple(Fault(fault.first, fault.more) for fault in list(self._kinds.values()))
