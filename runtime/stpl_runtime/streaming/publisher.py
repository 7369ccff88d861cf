"""One sink in a thread of its own: a slow disk or a slow receiver must not hold up frames."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stpl_core.errors import SinkError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import DeletesOld, HasReader, ReaderGoneError, Sink
from stpl_runtime.timing import utc_now

LIMIT = 8
"""Nowcasts that wait for a sink."""
FLUSH_S = 30.0
"""How long the end of a stream waits for what is still to be written."""
_LOOK_S = 0.2
"""How often an `offer` that waits for room looks whether it is to stop, and a thread that waits for
work whether anybody still reads."""
_AGES = 4096
"""The newest ages that the report is made of."""


@dataclass
class SinkReport:
    """What became of one stream's nowcasts that a sink was offered."""

    written: int = 0
    failed: int = 0
    """It could not write them."""
    dropped: int = 0
    """It was so slow that newer ones took their place in the queue, or the end came."""
    not_deleted: int = 0
    """Of those that were written: beside them, older ones could not be deleted."""


@dataclass(frozen=True)
class _Item:
    """One nowcast in the queue."""

    number: int
    """How many were offered before it."""
    nowcast: Nowcast
    offered: float
    """time.monotonic() then."""


class Publisher:
    """Writes nowcasts of one stream or several to a sink, oldest first.

    A full queue drops its oldest nowcast, or makes the streams wait where that may be.
    """

    def __init__(
        self,
        sink: Sink,
        log: Callable[[str], None],
        *,
        waits: bool = False,
        limit: int = LIMIT,
        after: Sequence[Publisher] = (),
        done: Callable[[], None] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start the thread.

        Args:
            sink: written to in the thread only.
            log: given a line when the sink begins to fail and when it is well again.
            waits: `offer` waits for room.
            limit: nowcasts that may wait.
            after: of the same streams; each nowcast waits until these are done with it, because
                `sink` reports their files.
            done: called in the thread after each nowcast, however it went.
            stopped: whether the stream is to end; then `offer` waits no longer.
        """
        self.sink, self._log, self._waits, self._limit, self._done = sink, log, waits, limit, done
        self._after, self._stopped = tuple(after), stopped
        self._queue: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closing = self._abandoned = False
        self._offered = 0
        self._busy: _Item | None = None
        self._failing = self._filling = False
        self._reports: dict[str, SinkReport] = {}
        self._ages_ms: dict[str, deque[float]] = {}
        self._lags_s: dict[str, deque[float]] = {}
        self.error: BaseException | None = None
        """What no sink should raise: a bug."""
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def offer(self, nowcast: Nowcast) -> None:
        """Queue a nowcast."""
        with self._changed:
            while self._waits and len(self._queue) >= self._limit and self._thread.is_alive():
                if self._stopped():
                    break
                self._changed.wait(_LOOK_S)
            if len(self._queue) >= self._limit:
                self._report(self._queue.popleft().nowcast.stream).dropped += 1
            self._queue.append(_Item(self._offered, nowcast, time.monotonic()))
            self._offered += 1
            self._changed.notify_all()

    def idle(self, stream: str) -> bool:
        """Whether everything that this stream offered has been dealt with."""
        with self._changed:
            return all(item.nowcast.stream != stream for item in self._unfinished())

    def wait_for(self, number: int) -> None:
        """Wait until this sink is done with the nowcast that was the `number`th offered."""
        with self._changed:
            while self._thread.is_alive() and self._has(number):
                self._changed.wait(1.0)

    def close(self, flush_s: float = FLUSH_S) -> None:
        """Write what waits, for so many seconds at most, and close the sink."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(flush_s)
        if not self._thread.is_alive():
            return
        with self._changed:
            lost = self._unfinished()
            self._abandoned = True
            self._queue.clear()
            for item in lost:
                self._report(item.nowcast.stream).dropped += 1
        self._log(
            f"{self.sink.name}: still busy after {flush_s:g} s; {len(lost)} nowcasts given up"
        )

    def report(self, stream: str) -> SinkReport:
        """The counts of a stream so far."""
        with self._changed:
            return replace(self._report(stream))

    def ages_ms(self, stream: str) -> list[float]:
        """From the newest frame's arrival until its nowcast was written; the newest ones."""
        with self._changed:
            return list(self._ages_ms.get(stream, ()))

    def lags_s(self, stream: str) -> list[float]:
        """From the newest frame's own time until its nowcast was written; the newest ones."""
        with self._changed:
            return list(self._lags_s.get(stream, ()))

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                for other in self._after:
                    other.wait_for(item.number)
                self._write(item.nowcast, item.offered)
                with self._changed:
                    self._busy = None
                    self._changed.notify_all()
                self._done()
        except BaseException as error:  # raised again in the main thread
            self.error = error
        finally:
            if not self._abandoned:
                self.sink.close()
            self._done()

    def _has(self, number: int) -> bool:
        return any(number == item.number for item in self._unfinished())

    def _unfinished(self) -> list[_Item]:
        return [*([] if self._busy is None else [self._busy]), *self._queue]

    def _report(self, stream: str) -> SinkReport:
        return self._reports.setdefault(stream, SinkReport())

    def _next(self) -> _Item | None:
        """What is to be written next; None when there will be nothing more."""
        with self._changed:
            watched = self.sink if isinstance(self.sink, HasReader) else None
            while not self._queue and not self._closing:
                self._changed.wait(None if watched is None else _LOOK_S)
                if watched is not None and watched.reader_is_gone():
                    raise ReaderGoneError(errno.EPIPE, "nobody reads it")
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._busy = item
            self._changed.notify_all()
            return item

    def _write(self, nowcast: Nowcast, offered: float) -> None:
        """A sink that fails is reported once, and again when it is well."""
        try:
            self.sink.write(nowcast)
        except ReaderGoneError:
            raise
        except (SinkError, OSError, MemoryError) as error:  # the last two: a machine without room
            with self._changed:
                self._report(nowcast.stream).failed += not self._abandoned
            if not self._failing:
                self._failing = True
                reason = str(error) or type(error).__name__
                self._log(f"{self.sink.name}: {reason}; the stream continues")
            return
        with self._changed:
            self._report(nowcast.stream).written += not self._abandoned
            if nowcast.latency_ms is not None:
                ages = self._ages_ms.setdefault(nowcast.stream, deque(maxlen=_AGES))
                ages.append(nowcast.latency_ms + 1e3 * (time.monotonic() - offered))
            if nowcast.issue_time is not None:
                lags = self._lags_s.setdefault(nowcast.stream, deque(maxlen=_AGES))
                lags.append((utc_now() - nowcast.issue_time).total_seconds())
        if self._failing:
            self._failing = False
            self._log(f"{self.sink.name}: writes again")
        self._look_at_old_ones(nowcast.stream)

    def _look_at_old_ones(self, stream: str) -> None:
        """Files that cannot be deleted are reported once; the nowcast was written all the same."""
        trouble = self.sink.not_deleted if isinstance(self.sink, DeletesOld) else None
        with self._changed:
            self._report(stream).not_deleted += trouble is not None
        if trouble is not None and not self._filling:
            self._log(f"{self.sink.name}: {trouble}; nowcasts are written")
        elif trouble is None and self._filling:
            self._log(f"{self.sink.name}: deletes again")
        self._filling = trouble is not None
