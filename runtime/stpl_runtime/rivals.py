"""Frames in a row that do not fit the time line: a fault of theirs, or a time line of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stpl_runtime.timing import TOLERANCE

AGREE = 3
"""So many in a row that agree among themselves are a new time line."""


@dataclass(frozen=True)
class _Seen:
    time: datetime
    arrived: float | None


class Rivals:
    """The misfits since the last frame that fitted."""

    def __init__(self, reach: int) -> None:
        """Start with none.

        Args:
            reach: two of them agree when they are 1 to so many slots apart.
        """
        self._reach = reach
        self._first: _Seen | None = None
        self._last: _Seen | None = None
        self._count = 0

    def clear(self) -> None:
        """A frame fitted: they were faults."""
        self._first = self._last = None
        self._count = 0

    def add(self, time: datetime, arrived: float | None, cadence_s: float, *, old: bool) -> bool:
        """One more of them.

        Args:
            time: its valid time.
            arrived: time.monotonic() when it was seen; None where that is not known.
            cadence_s: seconds between slots.
            old: it lies in the past of the time line. A clock that was set back goes on at the
                pace of the data; old frames that come faster are a backlog.

        Returns:
            Whether they are a time line of their own, which this frame belongs to.
        """
        seen = _Seen(time, arrived)
        if self._last is None or self._first is None or not self._agrees(time, cadence_s):
            self._first = self._last = seen
            self._count = 1
            return False
        self._last = seen
        self._count += 1
        return self._count >= AGREE and (not old or self._keeps_pace(seen, self._first))

    def _agrees(self, time: datetime, cadence_s: float) -> bool:
        assert self._last is not None
        apart = (time - self._last.time).total_seconds() / cadence_s
        return 1 <= round(apart) <= self._reach and abs(apart - round(apart)) <= TOLERANCE

    @staticmethod
    def _keeps_pace(last: _Seen, first: _Seen) -> bool:
        if last.arrived is None or first.arrived is None:
            return False
        took = last.arrived - first.arrived
        return 2 * took >= (last.time - first.time).total_seconds()
