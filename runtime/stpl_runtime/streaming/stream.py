"""The parts of one stream: source -> window -> nowcast -> sinks. `streams` has the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, FrameError, SourceLostError, StplError
from stpl_core.frames import FrameShape
from stpl_core.options import Policy
from stpl_runtime.engine import StateHandle
from stpl_runtime.ingest.unread_files import HasUnreadFiles
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster, Work
from stpl_runtime.sink import Sink
from stpl_runtime.source import Arrival, BadFrame, Notes, Source
from stpl_runtime.streaming.inbox import Inbox
from stpl_runtime.streaming.publisher import Publisher
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.streaming.state_file import StateFile
from stpl_runtime.streaming.status import Status
from stpl_runtime.streaming.stream_log import StreamLog
from stpl_runtime.watching.watcher import Watcher

QUEUE_LIMIT = 64
"""Frames that may wait between source and window, at least."""
_QUEUE_BYTES, _QUEUE_MOST = 64 * 2**20, 1024
"""Small frames may wait in greater number: they come fast, and a busy machine stalls at times."""
_LATENCIES = 4096
"""The newest latencies that the report is made of."""


class Stream:
    """One source through one nowcaster into some sinks; `Streams` runs it."""

    def __init__(
        self,
        nowcaster: Nowcaster,
        source: Source,
        sinks: Sequence[Sink] = (),
        *,
        ledger: Ledger,
        status: Status | None = None,
        watchers: Sequence[Watcher] = (),
        queue_limit: int | None = None,
        policy: Policy = "latest",
        state_file: StateFile | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            nowcaster: made with the same `ledger`.
            source: its thread starts with `start`.
            sinks: each nowcast goes to all of them, each in a thread of its own.
            ledger: counts the frames.
            status: shows nowcasts and problems; None writes to stderr.
            watchers: notified of frames, nowcasts and problems too.
            queue_limit: frames that may wait for the nowcaster; None: 64, of small ones more.
            policy: see `Policy`.
            state_file: of the same nowcaster, restored by the caller; None keeps no state.
        """
        self.nowcaster, self.source, self.sinks = nowcaster, source, tuple(sinks)
        self.ledger, self.policy = ledger, policy
        self.name = nowcaster.stream
        """Among several; empty where there is one."""
        self.status = status or Status()
        self._log = StreamLog(self.name, self.status, watchers)
        self.published = 0
        """Nowcasts that were made in this run."""
        self.ended = "not started"
        """Why it ended, in words."""
        self._queue_limit = queue_limit or _queue_limit(nowcaster.manifest.frame)
        self.state_file = state_file
        self._noted = False
        self._publishers: tuple[Publisher, ...] = ()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._not_finite = self._prewarmed = 0
        self._health = source.health.now()
        self._unsaved = self._unpublished = self._came = False
        self._fault: StplError | None = None
        self._inbox: Inbox | None = None

    def report(self) -> StreamReport:
        """The counts so far."""
        tally = self.nowcaster.state.tally
        latency = _percentiles(self._latencies, 95)
        age = _percentiles([age for one in self._publishers for age in one.ages_ms(self.name)], 99)
        sinks = {one.sink.name: one.report(self.name) for one in self._publishers}
        return StreamReport(
            ended=self.ended,
            counts=self.ledger.snapshot(),
            bad_frames=self._log.faults,
            nowcasts=tally.issued + tally.again,
            skipped=tally.skipped,
            incomplete=tally.incomplete + self.nowcaster.waiting,
            not_finite=self._not_finite,
            prewarmed=self._prewarmed,
            sink_failures={name: one.failed for name, one in sinks.items()},
            latency_median_ms=latency[0],
            latency_p95_ms=latency[1],
            standing_in=tally.standing_in,
            again=tally.again,
            gaps=self.nowcaster.window.gaps,
            reconnects=self.source.health.now().reconnects,
            unread_files=self._unread_count(),
            sinks=sinks,
            age_median_ms=age[0],
            age_p99_ms=age[1],
            lag_median_s=_percentiles(
                [lag for one in self._publishers for lag in one.lags_s(self.name)], 99
            )[0],
        )

    def start(self, wake: threading.Event, publishers: Sequence[Publisher]) -> None:
        """Begin to read the source.

        Args:
            wake: set when there may be something to do.
            publishers: of `sinks`.
        """
        self.ended = "error"  # until the loop gives another reason
        self._publishers = tuple(publishers)
        paced = self.policy == "pace"
        self._inbox = Inbox(
            self.source,
            self.ledger,
            1 if paced else self._queue_limit,
            waits=True if paced else None,
            wake=wake,
        )
        self._inbox.start()

    def take_in(self) -> bool:
        """Put what arrived into the window; False where nothing did."""
        assert self._inbox is not None
        arrivals = self._inbox.take(0.0, None if self.policy == "latest" else 1)
        for arrival in arrivals:
            self.put(arrival)
        self._unsaved |= bool(arrivals)
        self._came |= bool(arrivals)
        if self.over and not self._came and self.error is None:
            self._fault = FrameError(
                f"{self.source.name} ended and gave no frame",
                expected="at least one",
                fix="look at what it holds: stpl-deploy data inspect PATH",
            )
        return bool(arrivals)

    def put(self, arrival: Arrival) -> None:
        """Put a frame that was counted as received into the window."""
        item = arrival.item
        if isinstance(item, BadFrame):
            self.ledger.settle("bad")
            self._log.bad(item.source_id, item.reason)
            return
        self._log.put(item, self.nowcaster.put(item, arrival.arrived), self.nowcaster)

    def give_up(self, waited_s: float) -> None:
        """Nothing came for so long: a source that is not there, or never was, is lost.

        One that is there and merely quiet is not. One that holds files, and none of them is read,
        is a mistake of the user.
        """
        if self.error is not None:
            return
        source, health = self.source, self.source.health.now()
        expected = "a source that is up, or comes up within --idle-timeout"
        fix = "check that it runs, its address and your rights"
        reason = health.reason or "no answer"
        if not self._came and not health.was_up:
            lost = f"{source.name} was not there for {waited_s:g} s: {reason}"
            self._fault = SourceLostError(lost, expected=expected, fix=fix)
        elif health.state == "down":
            since = f"{health.since:%Y-%m-%d %H:%M:%S} UTC"
            lost = f"{source.name} went away, and is not back since {since}: {reason}"
            self._fault = SourceLostError(lost, expected=expected, fix=fix)
        elif (
            isinstance(source, HasUnreadFiles)
            and not self._came
            and source.unread_files.now().files
        ):
            self._fault = source.unread_files.nothing_else(source.name)

    def publish(
        self,
        work: Work,
        frames: Array,
        after: StateHandle | None,
        chances: Array | None = None,
    ) -> Nowcast:
        """Hand a nowcast on; see `Nowcaster.end`."""
        nowcast = self.nowcaster.end(work, frames, after, chances)
        self._prewarmed += work.prewarmed
        if nowcast.latency_ms is not None:
            self._latencies.append(nowcast.latency_ms)
        for publisher in self._publishers:
            publisher.offer(nowcast)
        self.published += 1
        self._unsaved = self._unpublished = True
        self.status.nowcast(nowcast, self.ledger.snapshot(), self.nowcaster.skipped)
        self._log.notify(lambda watcher: watcher.nowcast(nowcast))
        return nowcast

    def failed(self, error: AccuracyError) -> None:
        """Count a nowcast that is not finite."""
        self.nowcaster.past.reset()
        self._not_finite += 1
        self._unsaved = True
        self._log.once("not finite", f"nowcast not published: {error}", "error")

    def attend(self) -> None:
        """Report what the source met, and save the state where it changed."""
        before, self._health = self._health, self.source.health.now()
        self._log.health(self.source.name, before, self._health)
        if isinstance(self.source, HasUnreadFiles) and self._unread_count():
            self._log.once("passed over", self.source.unread_files.line(self.source.name))
        if isinstance(self.source, Notes) and self.source.note and not self._noted:
            self._noted = True
            self._log.line(self.source.note, level="info")
        if self.name and self.over and self.error is not None:
            self._log.once("source lost", f"{self.error}; the other streams go on", "error")
        if self.state_file is None:
            return
        idle = all(publisher.idle(self.name) for publisher in self._publishers)
        if self._unsaved or (self._unpublished and idle):
            self._save(self.state_file, idle)

    @property
    def over(self) -> bool:
        """Whether the source ended and all that it gave was taken."""
        return self._inbox is not None and self._inbox.ended

    @property
    def error(self) -> BaseException | None:
        """What ended the source, where it did not end well."""
        if self._inbox is None or self._inbox.error is None:
            return self._fault
        return self._inbox.error

    def log(self, line: str, event: str = "note") -> None:
        """A line for the person and the watchers, of no stream alone."""
        self._log.shared_line(line, event)

    def close(self) -> None:
        """Stop the source."""
        if self._inbox is not None:
            self._inbox.close()

    def finish(self, ended: str) -> None:
        """Save the state for the last time, after the sinks have finished."""
        self.ended = "error" if self.error is not None else ended
        self._unsaved = True
        self.attend()

    def _unread_count(self) -> int:
        source = self.source
        return source.unread_files.now().count if isinstance(source, HasUnreadFiles) else 0

    def _save(self, state_file: StateFile, published: bool) -> None:
        self._unsaved, self._unpublished = False, not published
        try:
            state_file.save(published=published)
        except OSError as error:
            line = f"{state_file.path} cannot be written: {error.strerror or error}"
            self._log.once("state file", f"{line}; the stream continues", "error")


def _queue_limit(shape: FrameShape) -> int:
    return max(QUEUE_LIMIT, min(_QUEUE_MOST, _QUEUE_BYTES // (4 * int(np.prod(shape)))))


def _percentiles(values: Sequence[float] | deque[float], high: int) -> list[float | None]:
    """The median and a high percentile; None where there are no values."""
    found = list(values)
    return np.percentile(found, [50, high]).tolist() if found else [None, None]
