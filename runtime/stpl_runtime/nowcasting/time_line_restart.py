"""Frames in a row that do not fit the time line: a fault of theirs, or a time line of their own."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from stpl_runtime.timing import TOLERANCE

AGREE = 3
"""So many in a row that agree among themselves are a new time line."""


@dataclass(frozen=True)
class Misfit:
    """A frame that did not fit."""

    time: datetime
    arrived: float | None


class Misfits:
    """The misfits since the last frame that fitted."""

    def __init__(self, times: Iterable[datetime] = ()) -> None:
        """Start with none, or with those of a state file."""
        self._seen = deque((Misfit(time, None) for time in times), maxlen=AGREE)

    @property
    def times(self) -> list[datetime]:
        """Their valid times, oldest first: for a state file."""
        return [misfit.time for misfit in self._seen]

    def clear(self) -> None:
        """A frame fitted: they were faults."""
        self._seen.clear()

    def add(
        self, time: datetime, arrived: float | None, cadence_s: float, *, reach: int, old: bool
    ) -> bool:
        """One more of them.

        Args:
            time: its valid time.
            arrived: time.monotonic() when it was seen; None where that is not known.
            cadence_s: seconds between slots.
            reach: two of them agree when they are 1 to so many slots apart.
            old: it lies in the past of the time line. A clock that was set back goes on at the
                pace of the data; old frames that come faster are a backlog.

        Returns:
            Whether they are a time line of their own, which this frame belongs to.
        """
        if not self._agrees(time, cadence_s, reach):
            self._seen.clear()
        self._seen.append(Misfit(time, arrived))
        return len(self._seen) == AGREE and (not old or self._keep_pace())

    def _agrees(self, time: datetime, cadence_s: float, reach: int) -> bool:
        if not self._seen:
            return True
        apart = (time - self._seen[-1].time).total_seconds() / cadence_s
        return 1 <= round(apart) <= reach and abs(apart - round(apart)) <= TOLERANCE

    def _keep_pace(self) -> bool:
        """Whether each came at least half as long after the one before as its time says."""
        for one, other in itertools.pairwise(self._seen):
            if one.arrived is None or other.arrived is None:
                return False
            if 2 * (other.arrived - one.arrived) < (other.time - one.time).total_seconds():
                return False
        return True
