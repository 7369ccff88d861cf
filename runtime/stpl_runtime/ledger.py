"""What became of every frame: `received = used + late + duplicate + dropped + bad + pending`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

Fate = Literal["used", "late", "duplicate", "dropped", "bad"]


@dataclass(frozen=True)
class Counts:
    """The counts at one moment; they add up."""

    received: int = 0
    used: int = 0
    """Entered a window."""
    late: int = 0
    """Older than the allowance."""
    duplicate: int = 0
    """Its slot was filled; the same frame again, or a correction that replaced it."""
    dropped: int = 0
    """Off the cadence grid, or pushed out of a full queue."""
    bad: int = 0
    """Cannot be decoded, or has the wrong shape, non-finite values or values out of range."""
    pending: int = 0
    """Waits in the queue, or for a second frame to learn the cadence from."""

    @property
    def add_up(self) -> bool:
        """Whether every frame is accounted for."""
        fates = self.used + self.late + self.duplicate + self.dropped + self.bad
        return self.received == fates + self.pending and self.pending >= 0


class Ledger:
    """Counts frames from several threads; every snapshot adds up."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = threading.Lock()
        self._counts = Counts()

    def receive(self) -> None:
        """A frame arrived; it is pending until it is settled."""
        self._change("received", "pending", -1)

    def settle(self, fate: Fate) -> None:
        """A pending frame met its fate."""
        self._change(fate, "pending", 1)

    def snapshot(self) -> Counts:
        """The counts now."""
        return self._counts

    def restore(self, counts: Counts) -> None:
        """Go on from counts of an earlier run."""
        with self._lock:
            self._counts = counts

    def _change(self, more: str, pending: str, fewer: int) -> None:
        with self._lock:
            counts = dict(vars(self._counts))
            counts[more] += 1
            counts[pending] -= fewer
            self._counts = Counts(**counts)  # one assignment: no moment at which it is half done
