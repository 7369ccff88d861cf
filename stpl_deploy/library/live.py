"""A running stream as an iterator of nowcasts."""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from stpl_core.bundle import Bundle
from stpl_core.log import Level
from stpl_core.options import RunLimits, StreamOptions
from stpl_runtime.ledger import Counts
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.streaming.opening import OpenStream, open_stream
from stpl_runtime.streaming.report import StreamsReport
from stpl_runtime.streaming.status import Status

_log = logging.getLogger("stpl_deploy.stream")
_LOOK_S = 0.1
"""How often one who waits looks whether the other end is still there."""


class LiveNowcasts(Iterator[Nowcast]):
    """Nowcasts as they are made, by a thread of its own.

        with model.stream("radar/", sinks=["nc:out"]) as nowcasts:
            for nowcast in nowcasts:
                ...

    Whoever is slow with the nowcasts is treated as a slow sink is: with the policy `latest` the
    oldest that wait are left out, with `queue` and `pace` the stream waits.
    """

    def __init__(self, bundle: Bundle, options: StreamOptions, limits: RunLimits) -> None:
        """Open the source and the sinks, and start.

        Args:
            bundle: an opened bundle.
            options: what is streamed, and how.
            limits: when it ends by itself.

        Raises:
            StplError: what cannot be opened.
        """
        self._work = _Work()
        self.thread = threading.Thread(
            target=self._work.run, args=(bundle, options, limits), name="stream", daemon=True
        )
        """It ends a little after the last reference to this has gone."""
        self._let_go = weakref.finalize(self, self._work.stop)
        self.thread.start()
        self._work.opened.wait()
        if self._work.error is not None and self._work.found is None:
            self.thread.join()
            raise self._work.error

    def __next__(self) -> Nowcast:
        """The next nowcast; waits for it.

        Raises:
            StplError: what ended the stream, once its nowcasts are through.
        """
        found = self._work.waiting.take()
        if found is not None:
            return found
        self.thread.join()
        if self._work.error is not None:
            error, self._work.error = self._work.error, None
            raise error
        raise StopIteration

    def stop(self) -> None:
        """End the stream: the source, the sinks and the engine are closed when this returns."""
        self._work.stop()
        self.thread.join()

    @property
    def report(self) -> StreamsReport:
        """What it did so far: frames counted by their fate, nowcasts, latencies."""
        assert self._work.found is not None, "it was opened"
        return self._work.found.streams.report()

    def __enter__(self) -> LiveNowcasts:
        """The iterator itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """See `stop`."""
        self.stop()


class _Handover:
    """The sink that hands nowcasts to the iterator, one at a time."""

    name = "iterator"

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Nowcast] = queue.SimpleQueue()
        self._taken = threading.Event()
        self.closed = threading.Event()
        self.dropped = threading.Event()
        """Nobody takes them any more."""
        self.ending: Callable[[], bool] = lambda: False
        """Whether what waits is all that will come; then there is room for it."""

    def write(self, nowcast: Nowcast) -> None:
        """Wait until there is room, or nobody takes it any more."""
        while not (self._queue.empty() or self.dropped.is_set() or self.ending()):
            self._taken.clear()
            self._taken.wait(_LOOK_S)
        self._queue.put(nowcast)

    def take(self) -> Nowcast | None:
        """The next one; None where no more will come."""
        while not self.dropped.is_set():
            over = self.closed.is_set()
            try:
                found = self._queue.get(block=not over, timeout=None if over else _LOOK_S)
            except queue.Empty:
                if over:
                    return None
            else:
                self._taken.set()
                return found
        return None

    def close(self) -> None:
        """No more will come."""
        self.closed.set()


class _Work:
    """What the thread does; it does not hold the iterator, which may be dropped without `stop`."""

    def __init__(self) -> None:
        self.waiting = _Handover()
        self.opened = threading.Event()
        self.found: OpenStream | None = None
        self.error: BaseException | None = None

    def run(self, bundle: Bundle, options: StreamOptions, limits: RunLimits) -> None:
        """Open, stream, close."""
        try:
            with open_stream(bundle, options, sinks=[self.waiting], status=_Logged()) as found:
                self.found = found
                self.waiting.ending = lambda: _ends(found, limits)
                self.opened.set()
                found.streams.run(
                    max_nowcasts=limits.max_nowcasts, idle_timeout_s=limits.idle_timeout
                )
        except BaseException as error:  # raised again by whoever iterates
            self.error = error
        finally:
            self.opened.set()
            self.waiting.close()

    def stop(self) -> None:
        """End it soon."""
        self.waiting.dropped.set()
        if self.found is not None:
            self.found.streams.stop()


def _ends(found: OpenStream, limits: RunLimits) -> bool:
    """Whether no nowcast will be made after those that are there."""
    made = sum(stream.published for stream in found.each)
    enough = limits.max_nowcasts is not None and made >= limits.max_nowcasts
    return enough or all(stream.over for stream in found.each)


class _Logged(Status):
    """Lines go to the log `stpl_deploy.stream`, and none to stderr."""

    def __enter__(self) -> _Logged:
        return self

    def line(self, line: str, event: str = "note", level: Level = "info", **facts: Any) -> None:
        """A record of that level."""
        _log.log(logging.getLevelName(level.upper()), "%s", line)

    def nowcast(self, nowcast: Nowcast, counts: Counts, skipped: int) -> None:
        """The iterator gives it."""
