"""Frames of a video or camera at the model's cadence: chosen by their time, never by counting."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from datetime import datetime, timedelta, timezone
from typing import Generic, TypeVar

from stpl_runtime.timing import EPOCH, TimeGrid

_JUMP_S = 10.0
"""A frame that comes later than its clock says by this much, or lies as far before the one that
came last: the clock was set, or began anew."""
_DRIFT_S = 30.0
"""How long the least delay is watched before the clock follows it."""
_PACE, _SURE = 9, 4
"""Pictures whose pace says whether they come faster than the cadence, and so many at least."""
_SLOW = 0.75
"""Of the cadence: pictures this far apart are those of its slots, wherever they lie."""


T = TypeVar("T")


class Sampler(Generic[T]):
    """Takes one picture for each slot of the cadence: the nearest, and mostly at once.

    A slot from which no picture is within a quarter of the cadence stays empty: one that was lost
    on the way is a missing slot, and shifts nothing. Pictures that come no faster than the cadence
    are taken as they come: a camera's own pictures may all lie between two slots of ours.
    """

    def __init__(self, cadence_s: float | None, phase: datetime | None = None) -> None:
        """Set the grid.

        Args:
            cadence_s: seconds between slots; None takes every picture.
            phase: the time of a slot; None: that of the first picture.
        """
        self._cadence_s, self._phase = cadence_s, phase
        self._grid: TimeGrid | None = None
        self._before: datetime | None = None
        self._last: int | None = None
        self._taken_at: datetime | None = None
        self._pace: deque[float] = deque(maxlen=_PACE)
        self._held: tuple[int, datetime, T] | None = None

    def offer(self, at: datetime, picture: T) -> list[tuple[datetime, T]]:
        """What is taken now that `picture` of the time `at` came after all others."""
        if self._cadence_s is None:
            return [(at, picture)]
        if self._grid is None:
            self._grid = TimeGrid(self._cadence_s, self._phase or at)
        before, self._before = self._before, at
        if before is not None:
            self._pace.append((at - before).total_seconds())
        if len(self._pace) >= _SURE and statistics.median(self._pace) > _SLOW * self._cadence_s:
            return [*self.rest(), *self._next(at, picture)]
        slot = self._grid.slot(at)
        taken = [] if self._held is None or self._held[0] == slot else self.rest()
        if before is not None and (before - at).total_seconds() > _JUMP_S:
            before = self._last = None  # else nothing would be taken until the old time is back
        if slot is None or (self._last is not None and slot <= self._last) or self._is_near(at):
            return taken
        early = self._grid.phase + timedelta(seconds=slot * self._cadence_s) - at
        if before is not None and early > (at - before) / 2:
            self._held = slot, at, picture  # the next should be nearer; if not, this is taken
            return taken
        if self._held is not None and abs(early) > abs(early + (at - self._held[1])):
            return [*taken, *self.rest()]
        self._held, self._last, self._taken_at = None, slot, at
        return [*taken, (at, picture)]

    def _next(self, at: datetime, picture: T) -> list[tuple[datetime, T]]:
        """The picture, unless it came right after one that was taken."""
        assert self._grid is not None
        if self._is_near(at):
            return []
        slot = self._grid.slot(at)
        self._last, self._taken_at = self._last if slot is None else slot, at
        return [(at, picture)]

    def _is_near(self, at: datetime) -> bool:
        """Whether it is less than half a cadence after what was taken."""
        if self._taken_at is None or self._cadence_s is None:
            return False
        after_s = (at - self._taken_at).total_seconds()
        return -_JUMP_S < after_s < self._cadence_s / 2 - 1e-5

    def rest(self) -> list[tuple[datetime, T]]:
        """What is taken when nothing comes after."""
        if self._held is None:
            return []
        self._last, at, picture = self._held
        self._held, self._taken_at = None, at
        return [(at, picture)]


class LiveClock:
    """UTC of frames that carry a camera's own clock: wall clock at connect plus that clock.

    A network delays frames by different times and never brings one early, so the least delay ties
    the two clocks together. It is looked for anew all the time: cameras run slow or fast.
    """

    def __init__(self) -> None:
        """Not connected yet."""
        self._offset_s: float | None = None
        self._least_s = self._since_s = 0.0

    def at(self, clock_s: float | None, now_s: float | None = None) -> datetime:
        """When the frame that just arrived was taken.

        Args:
            clock_s: by the camera's clock, seconds from anywhere; None takes its arrival.
            now_s: the wall clock, seconds since 1970; None reads it.
        """
        now_s = time.time() if now_s is None else now_s
        if clock_s is None:
            return datetime.fromtimestamp(now_s, timezone.utc)
        offset_s = now_s - clock_s
        jumped = self._offset_s is not None and offset_s - self._offset_s > _JUMP_S
        if self._offset_s is None or offset_s < self._offset_s or jumped:
            self._offset_s = self._least_s = offset_s
            self._since_s = now_s
        self._least_s = min(self._least_s, offset_s)
        if now_s - self._since_s > _DRIFT_S:
            self._offset_s, self._least_s, self._since_s = self._least_s, offset_s, now_s
        return EPOCH + timedelta(seconds=self._offset_s + clock_s)


class Pacer:
    """Lets frames go at N times the pace of their own times."""

    def __init__(self, speed: float) -> None:
        """Set N; 0 is as fast as they are taken."""
        self._speed = speed
        self._begin: tuple[float, datetime] | None = None

    def wait(self, at: datetime, stop: threading.Event) -> None:
        """Wait until the frame of the time `at` is due, or `stop` is set."""
        if self._speed <= 0:
            return
        if self._begin is None:
            self._begin = time.monotonic(), at
        began, first = self._begin
        due = began + (at - first).total_seconds() / self._speed
        stop.wait(max(due - time.monotonic(), 0.0))
