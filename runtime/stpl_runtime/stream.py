"""The stream: source -> window -> nowcast -> sinks, with the work ahead done between arrivals."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import numpy as np

from stpl_deploy.errors import AccuracyError, FrameError, SinkError
from stpl_deploy.frames import Frame
from stpl_runtime.faults import Fault, Faults
from stpl_runtime.inbox import Inbox
from stpl_runtime.ledger import Counts, Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcaster import Nowcaster
from stpl_runtime.sink import Sink
from stpl_runtime.source import Arrival, BadFrame, Source
from stpl_runtime.status import Status
from stpl_runtime.timing import time_text
from stpl_runtime.watcher import Watcher

QUEUE_LIMIT = 64
"""Frames that wait between source and window."""
_WAIT_S = 0.2
"""How long the loop sleeps when nothing arrives before it looks at its other duties."""
_LATENCIES = 4096
"""The newest latencies that the report is made of."""


@dataclass(frozen=True)
class StreamReport:
    """What a stream did."""

    ended: str
    """Why it ended, in words; `error` where an error says it."""
    counts: Counts
    bad_frames: tuple[Fault, ...]
    """The bad ones of `counts`, by what is wrong with them."""
    nowcasts: int
    """Made, and offered to every sink."""
    skipped: int
    """Not made, because a newer frame was there already."""
    incomplete: int
    """Not made, because a frame of the window was missing; the newest slot's too, so far."""
    not_finite: int
    """Made by the engine with NaN or infinity, and not published."""
    prewarmed: int
    """Nowcasts for which only the newest frame's own work was left when it arrived."""
    sink_failures: dict[str, int]
    """Sink -> nowcasts that it could not write."""
    latency_median_ms: float | None
    """From a frame's arrival to its nowcast, before the sinks."""
    latency_p95_ms: float | None

    @property
    def exit_code(self) -> int:
        """0, or the code of what went wrong on the way."""
        if any(self.sink_failures.values()):
            return SinkError.exit_code
        if self.not_finite:
            return AccuracyError.exit_code
        all_bad = self.counts.bad == self.counts.received > 0
        return FrameError.exit_code if all_bad else 0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        document = asdict(self)
        document["latency_ms"] = {
            "median": document.pop("latency_median_ms"),
            "p95": document.pop("latency_p95_ms"),
        }
        return document


class Stream:
    """One source through one nowcaster into some sinks."""

    def __init__(
        self,
        nowcaster: Nowcaster,
        source: Source,
        sinks: Sequence[Sink] = (),
        *,
        ledger: Ledger,
        status: Status | None = None,
        watchers: Sequence[Watcher] = (),
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """Put the parts together.

        Args:
            nowcaster: made with the same `ledger`.
            source: its thread starts with `run`.
            sinks: each nowcast goes to all of them.
            ledger: counts the frames.
            status: told of nowcasts and problems; None writes to stderr.
            watchers: told of frames, nowcasts and problems too.
            queue_limit: frames that may wait for the nowcaster.
        """
        self.nowcaster, self.source, self.sinks = nowcaster, source, tuple(sinks)
        self.ledger = ledger
        self._inbox = Inbox(source, ledger, queue_limit)
        self._status = status or Status()
        self._watchers = tuple(watchers)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._failures = {sink.name: 0 for sink in self.sinks}
        self._failing: set[str] = set()
        self._told: set[str] = set()
        self._faults = Faults()
        self._published = self._not_finite = self._prewarmed = 0
        self._stop = threading.Event()
        self.ended = "not started"
        """Why it ended, in words."""

    def stop(self) -> None:
        """End `run` soon; may be called from any thread or a signal handler."""
        self._stop.set()

    def run(
        self, *, max_nowcasts: int | None = None, idle_timeout_s: float | None = None
    ) -> StreamReport:
        """Stream until stopped.

        Args:
            max_nowcasts: end after so many.
            idle_timeout_s: end when nothing arrived for so long.

        Raises:
            SourceLostError: the source went away; `report` still gives the counts.
            StplError: another error of the source.
        """
        self.ended = "error"  # until the loop gives another reason
        self.nowcaster.warm_up()
        self._inbox.start()
        try:
            with self._status:
                self.ended = self._loop(max_nowcasts, idle_timeout_s)
        finally:
            self._inbox.close()
            for sink in self.sinks:
                sink.close()
        if self._inbox.error is not None:
            self.ended = "error"
            raise self._inbox.error
        return self.report()

    def report(self) -> StreamReport:
        """The counts so far."""
        latencies = list(self._latencies)
        median, p95 = np.percentile(latencies, [50, 95]).tolist() if latencies else (None, None)
        return StreamReport(
            ended=self.ended,
            counts=self.ledger.snapshot(),
            bad_frames=self._faults.seen(),
            nowcasts=self._published,
            skipped=self.nowcaster.skipped,
            incomplete=self.nowcaster.incomplete + self.nowcaster.waiting,
            not_finite=self._not_finite,
            prewarmed=self._prewarmed,
            sink_failures=dict(self._failures),
            latency_median_ms=median,
            latency_p95_ms=p95,
        )

    def _loop(self, max_nowcasts: int | None, idle_timeout_s: float | None) -> str:
        last = time.monotonic()
        busy = True  # whether there may be work ahead
        while not self._stop.is_set():
            arrivals = self._inbox.take(0.0 if busy else _WAIT_S)
            if arrivals:
                last, busy = time.monotonic(), True
                self._take_in(arrivals)
                if max_nowcasts is not None and self._published >= max_nowcasts:
                    return f"{max_nowcasts} nowcasts made"
                continue
            busy = busy and self.nowcaster.idle_step()
            if busy:
                continue
            if self._inbox.ended:
                return "the source ended"
            if idle_timeout_s is not None and time.monotonic() - last >= idle_timeout_s:
                return f"nothing arrived for {idle_timeout_s:g} s"
        return "stopped"

    def _take_in(self, arrivals: list[Arrival]) -> None:
        """Put every frame into the window, then make the newest slot's nowcast."""
        for arrival in arrivals:
            self._put(arrival)
        prewarmed = self.nowcaster.prewarmed
        try:
            nowcast = self.nowcaster.issue()
        except AccuracyError as error:
            self._not_finite += 1
            self._tell_once("not finite", f"nowcast not published: {error}")
            return
        if nowcast is not None:
            self._prewarmed += prewarmed
            self._publish(nowcast)

    def _put(self, arrival: Arrival) -> None:
        item = arrival.item
        if isinstance(item, BadFrame):
            self.ledger.settle("bad")
            self._tell_bad(item.source_id, item.reason)
            return
        put = self.nowcaster.put(item, arrival.arrived)
        for watcher in self._watchers:
            watcher.frame(item, put.verdict, "")
        if put.verdict == "bad":
            self._tell_bad(item.source_id, put.reason)
        elif put.verdict == "late":
            self._tell_once("late", f"{_named(item)} is late: {self._newest_text()}")
        elif put.verdict == "dropped":
            self._tell_once("dropped", f"{_named(item)} is off the grid of {self._grid_text()}")

    def _tell_bad(self, source_id: str, reason: str) -> None:
        line = self._faults.add(source_id, reason)
        if line is not None:
            self._tell(f"{line} (told once; see the counts)")

    def _tell_once(self, kind: str, line: str) -> None:
        """The first of its kind; the others are in the counts."""
        if kind not in self._told:
            self._told.add(kind)
            self._tell(f"{line} (told once; see the counts)")

    def _tell(self, line: str) -> None:
        self._status.say(line)
        for watcher in self._watchers:
            watcher.problem(line)

    def _newest_text(self) -> str:
        lateness = self.nowcaster.window.lateness
        return f"more than {lateness} slots older than the newest frame"

    def _grid_text(self) -> str:
        grid = self.nowcaster.window.grid
        assert grid is not None
        return (
            f"{grid.cadence_s:g} s from {time_text(grid.phase)} on; if that is not the "
            "cadence of this source, restart with --cadence SECONDS"
        )

    def _publish(self, nowcast: Nowcast) -> None:
        if nowcast.latency_ms is not None:
            self._latencies.append(nowcast.latency_ms)
        for sink in self.sinks:
            self._write(sink, nowcast)
        self._published += 1
        self._status.nowcast(nowcast, self.ledger.snapshot(), self.nowcaster.skipped)
        for watcher in self._watchers:
            watcher.nowcast(nowcast)

    def _write(self, sink: Sink, nowcast: Nowcast) -> None:
        """A sink that fails is reported once, and again when it is well."""
        try:
            sink.write(nowcast)
        except SinkError as error:
            self._failures[sink.name] += 1
            if sink.name not in self._failing:
                self._failing.add(sink.name)
                self._tell(f"{sink.name}: {error}; the stream goes on")
            return
        if sink.name in self._failing:
            self._failing.discard(sink.name)
            self._tell(f"{sink.name}: writes again")


def _named(frame: Frame) -> str:
    return f"frame {frame.source_id} of {time_text(frame.valid_time)}"


@contextmanager
def stop_on_signals(stream: Stream) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the stream cleanly; a second one interrupts at once.

    Works in the main thread only, which alone gets signals; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stream.stop()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
