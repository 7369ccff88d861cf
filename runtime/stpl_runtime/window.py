"""The sliding window of the newest T slots: where each frame goes, or why it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stpl_deploy.errors import UsageError
from stpl_deploy.frames import Frame
from stpl_runtime.ledger import Fate, Ledger
from stpl_runtime.timing import TimeGrid

Verdict = Literal[Fate, "pending"]


@dataclass(frozen=True)
class Entry:
    """A frame in its slot."""

    slot: int
    serial: int
    """Differs for every frame that was ever put in, also where one replaces another."""
    frame: Frame
    arrived: float | None
    """time.monotonic() when it was seen whole."""


@dataclass(frozen=True)
class Placed:
    """What `Window.put` did."""

    verdict: Verdict
    left: tuple[Entry, ...] = ()
    """Entries that fell out of the window, oldest first."""


class Window:
    """The newest T slots of the cadence grid.

    The cadence is stated, or learned from the first two distinct times; until then the first
    frame is pending. The first frame's time is the phase of the grid.
    """

    def __init__(
        self,
        context: int,
        ledger: Ledger,
        *,
        cadence_s: float | None = None,
        lateness: int | None = None,
    ) -> None:
        """Make an empty window.

        Args:
            context: T, its length in slots.
            ledger: each frame that is put in must have been received there before.
            cadence_s: seconds between slots; None learns it.
            lateness: a frame this many slots older than the newest is still taken; None: T - 1.

        Raises:
            UsageError: a lateness outside 0 .. T - 1, or a cadence that is not positive.
        """
        self.context = context
        self.lateness = context - 1 if lateness is None else lateness
        if not 0 <= self.lateness < context:
            raise UsageError(
                f"--lateness {lateness}",
                expected=f"0 to {context - 1} slots (this model reads {context} frames)",
                fix=f"--lateness {context - 1}",
            )
        check_cadence(cadence_s)
        self._ledger = ledger
        self._stated_s = cadence_s
        self._grid: TimeGrid | None = None
        self._first: tuple[Frame, float | None] | None = None  # waits for a second distinct time
        self._entries: dict[int, Entry] = {}
        self._serial = 0
        self._newest: int | None = None

    @property
    def grid(self) -> TimeGrid | None:
        """The cadence grid; None until it is known."""
        return self._grid

    @property
    def newest(self) -> int | None:
        """The newest slot that was ever filled; None at the start."""
        return self._newest

    def put(self, frame: Frame, arrived: float | None = None) -> Placed:
        """Put a received frame where it belongs and settle it in the ledger."""
        if self._grid is None and self._stated_s is not None:
            self._grid = TimeGrid(self._stated_s, frame.valid_time)
        if self._grid is None:
            return self._learn(frame, arrived)
        return self._place(self._grid, frame, arrived)

    def entries(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries of slots first .. last, up to the first one that is missing."""
        found = []
        for slot in range(first, last + 1):
            entry = self._entries.get(slot)
            if entry is None:
                break
            found.append(entry)
        return tuple(found)

    def complete(self) -> tuple[Entry, ...] | None:
        """The T entries that end in the newest slot; None where one is missing."""
        if self._newest is None:
            return None
        found = self.entries(self._newest - self.context + 1, self._newest)
        return found if len(found) == self.context else None

    def _learn(self, frame: Frame, arrived: float | None) -> Placed:
        if self._first is None:
            self._first = (frame, arrived)
            return Placed("pending")
        first, first_arrived = self._first
        if frame.valid_time == first.valid_time:
            if not _same(frame, first):
                self._first = (frame, arrived)
            self._ledger.settle("duplicate")
            return Placed("duplicate")
        apart = abs((frame.valid_time - first.valid_time).total_seconds())
        self._grid = TimeGrid(apart, first.valid_time)
        self._first = None
        self._place(self._grid, first, first_arrived)
        return self._place(self._grid, frame, arrived)

    def _place(self, grid: TimeGrid, frame: Frame, arrived: float | None) -> Placed:
        slot = grid.slot(frame.valid_time)
        if slot is None:
            return self._settle("dropped")
        if self._newest is not None and slot < self._newest - self.lateness:
            return self._settle("late")
        there = self._entries.get(slot)
        if there is None or not _same(frame, there.frame):
            self._serial += 1
            self._entries[slot] = Entry(slot, self._serial, frame, arrived)
        if there is not None:
            return self._settle("duplicate")
        if self._newest is None or slot > self._newest:
            self._newest = slot
        return self._settle("used", self._forget(self._newest - self.context))

    def _forget(self, last: int) -> tuple[Entry, ...]:
        leaving = sorted(slot for slot in self._entries if slot <= last)
        return tuple(self._entries.pop(slot) for slot in leaving)

    def _settle(self, fate: Fate, left: tuple[Entry, ...] = ()) -> Placed:
        self._ledger.settle(fate)
        return Placed(fate, left)


def _same(one: Frame, other: Frame) -> bool:
    """Whether two frames of one slot carry the same values."""
    if (one.mask is None) != (other.mask is None):
        return False
    masks = one.mask is None or np.array_equal(one.mask, other.mask)  # type: ignore[arg-type]
    return masks and np.array_equal(one.data, other.data)


def check_cadence(cadence_s: float | None) -> None:
    """Raise UsageError for a cadence that is not a positive number of seconds."""
    if cadence_s is not None and not 0 < cadence_s < float("inf"):
        raise UsageError(
            f"--cadence {cadence_s:g}", expected="seconds above 0", fix="--cadence 300"
        )
