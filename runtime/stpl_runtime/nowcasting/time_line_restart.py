"""Frames in a row that do not fit the time line: a fault of theirs, or a time line of their own."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from stpl_runtime.timing import TOLERANCE

AGREE = 3
"""So many in a row that agree among themselves are a new time line."""


@dataclass(frozen=True)
class _Seen:
    time: datetime
    arrived: float | None


class Misfits:
    """The misfits since the last frame that fitted."""

    def __init__(self, reach: int) -> None:
        """Start with none.

        Args:
            reach: two of them agree when they are 1 to so many slots apart.
        """
        self._reach = reach
        self._seen: deque[_Seen] = deque(maxlen=AGREE)

    def clear(self) -> None:
        """A frame fitted: they were faults."""
        self._seen.clear()

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
        if not self._agrees(time, cadence_s):
            self._seen.clear()
        self._seen.append(_Seen(time, arrived))
        return len(self._seen) == AGREE and (not old or self._keep_pace())

    def _agrees(self, time: datetime, cadence_s: float) -> bool:
        if not self._seen:
            return True
        apart = (time - self._seen[-1].time).total_seconds() / cadence_s
        return 1 <= round(apart) <= self._reach and abs(apart - round(apart)) <= TOLERANCE

    def _keep_pace(self) -> bool:
        """Whether each came at least half as long after the one before as its time says."""
        for one, other in itertools.pairwise(self._seen):
            if one.arrived is None or other.arrived is None:
                return False
            if 2 * (other.arrived - one.arrived) < (other.time - one.time).total_seconds():
                return False
        return True
