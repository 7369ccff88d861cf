"""The bounded queue between the source's thread and the thread that makes nowcasts."""

from __future__ import annotations

import threading
import time
from collections import deque

from stpl_runtime.ledger import Ledger
from stpl_runtime.source import Arrival, Source


class Inbox:
    """Runs a source in a thread of its own and keeps what arrived until it is taken.

    What is taken is still pending in the ledger; what a full queue pushed out is dropped.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        limit: int,
        *,
        waits: bool | None = None,
        wake: threading.Event | None = None,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            source: read in a thread.
            ledger: arrivals are counted there as received.
            limit: most arrivals that wait here.
            waits: whether the source waits while the queue is full; None: as its `waits`.
            wake: set when something arrived or the source ended.
        """
        self._source, self._ledger, self._limit = source, ledger, limit
        self._waits = source.waits if waits is None else waits
        self._wake = wake or threading.Event()
        self._waiting: deque[Arrival] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self.error: BaseException | None = None
        """What ended the source, where it did not end well; set before `ended`."""
        self._thread = threading.Thread(target=self._read, name="source", daemon=True)

    def start(self) -> None:
        """Begin to read the source."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=5.0)

    @property
    def ended(self) -> bool:
        """Whether the source ended and everything was taken."""
        with self._changed:
            return self._ended and not self._waiting

    def take(self, timeout_s: float, most: int | None = None) -> list[Arrival]:
        """What waits, oldest first.

        Args:
            timeout_s: wait so long for the first arrival.
            most: take so many; None takes all.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._waiting and not self._ended:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            count = len(self._waiting) if most is None else min(most, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            self._changed.notify_all()
        return taken

    def _read(self) -> None:
        try:
            for arrival in self._source.arrivals(self._stop):
                if not self._put(arrival):
                    break
        except BaseException as error:  # the main thread raises it
            self.error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._wake.set()

    def _put(self, arrival: Arrival) -> bool:
        """False where the stream stopped before there was room."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                if self._waits:
                    while len(self._waiting) >= self._limit and not self._stop.is_set():
                        self._changed.wait(1.0)
                else:
                    self._waiting.popleft()
                    self._ledger.settle("dropped")
            if self._stop.is_set():
                return False
            self._ledger.receive()
            self._waiting.append(arrival)
            self._changed.notify_all()
        self._wake.set()
        return True
