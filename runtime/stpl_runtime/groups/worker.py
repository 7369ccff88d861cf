"""One member of a group at work: a nowcaster for each stream of its partitions, over one session.

Record by record: the frame goes into its stream's window, the nowcast is made and written by every
sink, and then the record counts as done. So the committed offset never runs ahead of what is
written, and a record whose member dies is done again by the next one: with the same bits, since a
nowcast depends on its window alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from stpl_core.errors import AccuracyError, SinkError, SourceLostError
from stpl_runtime.groups.consumer import KafkaGroup, Taken
from stpl_runtime.ledger import Counts, Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.sink import Sink
from stpl_runtime.streaming.service_manager import ServiceManager
from stpl_runtime.streaming.status import Status
from stpl_runtime.streaming.stream import Stream

_TRIES, _TRY_S = 4, 1.0
"""Of a sink that fails; then the member ends, and another one takes its partitions."""

_REPORT_S = 30.0
"""Between two lines of the log on how it goes."""

MakeNowcaster = Callable[[str, Ledger], Nowcaster]
"""(stream, where its frames are counted) -> its nowcaster."""


@dataclass(frozen=True)
class GroupReport:
    """What a member did."""

    ended: str
    group: str
    counts: dict[str, int]
    """See `GroupCounts`."""
    nowcasts: Mapping[str, int]
    """Stream -> nowcasts that were made and written by every sink."""
    frames: Mapping[str, Counts]
    """Stream -> its frames, those that filled a window again included."""
    not_finite: int

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "ended": self.ended,
            "group": {"name": self.group, **self.counts},
            "nowcasts": sum(self.nowcasts.values()),
            "not_finite": self.not_finite,
            "streams": {
                name: {"nowcasts": self.nowcasts.get(name, 0), "counts": asdict(counts)}
                for name, counts in self.frames.items()
            },
        }


class GroupWorker:
    """Runs until stopped. One thread does all of it."""

    def __init__(
        self,
        group: KafkaGroup,
        name: str,
        make: MakeNowcaster,
        sinks: Sequence[Sink],
        status: Status,
        manager: ServiceManager | None = None,
    ) -> None:
        """Put it together.

        Args:
            group: where records come from.
            name: of the group.
            make: makes the nowcaster of a stream.
            sinks: each nowcast goes to all of them.
            status: shows nowcasts and problems.
            manager: notified of how it goes; None: the one that started this process.
        """
        self._group, self._name, self._make = group, name, make
        self._sinks, self._status = tuple(sinks), status
        self._manager = manager or ServiceManager()
        self._streams: dict[tuple[int, str], Stream] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._nowcasts: dict[str, int] = {}
        self._not_finite = self._turn = 0
        self._stop = threading.Event()
        self.ended = "not started"

    def stop(self) -> None:
        """End `run` soon; may be called from any thread or a signal handler."""
        self._stop.set()

    def release(self, partitions: set[int]) -> None:
        """Forget the streams of partitions that others have now."""
        for place in [place for place in self._streams if place[0] in partitions]:
            del self._streams[place]

    def report(self) -> GroupReport:
        """What was done so far."""
        return GroupReport(
            ended=self.ended,
            group=self._name,
            counts=asdict(self._group.counts),
            nowcasts=dict(self._nowcasts),
            frames={name: ledger.snapshot() for name, ledger in sorted(self._ledgers.items())},
            not_finite=self._not_finite,
        )

    def run(
        self, *, max_nowcasts: int | None = None, idle_timeout_s: float | None = None
    ) -> GroupReport:
        """Take records until stopped.

        Args:
            max_nowcasts: end after so many.
            idle_timeout_s: end when no record came for so long.

        Raises:
            SinkError: a sink failed several times; what it did not write is not done.
            SourceLostError: the broker was away when `idle_timeout_s` was over, or refuses us.
            UsageError: the records have no keys.
        """
        self.ended = "error"
        self._make("", Ledger()).warm_up()
        self._manager.ready()
        last = reported = monotonic()
        was = self._group.health.now()
        ended = "stopped"
        with self._status:
            for taken in self._group.taken(self._stop):
                now = self._group.health.now()
                if now.state != was.state:
                    self._status.line(f"{self._group.name} is {now.state} {now.reason}".rstrip())
                was = now
                self._manager.alive(self._line)
                if monotonic() - reported >= _REPORT_S:
                    reported = monotonic()
                    facts = asdict(self._group.counts)
                    self._status.line(self._line(), "group", streams=len(self._streams), **facts)
                if taken is not None:
                    self._take(taken)
                    last = monotonic()
                self._group.is_busy = taken is None and self._idle_step()
                if max_nowcasts is not None and sum(self._nowcasts.values()) >= max_nowcasts:
                    ended = f"{max_nowcasts} nowcasts were made"
                    self._stop.set()
                elif idle_timeout_s is not None and monotonic() - last >= idle_timeout_s:
                    self._check_there(idle_timeout_s)
                    ended = f"nothing arrived for {idle_timeout_s:g} s"
                    self._stop.set()
        self._manager.stopping()
        self.ended = ended
        return self.report()

    def _take(self, taken: Taken) -> None:
        """Do all that a record asks for."""
        stream = self._stream(taken)
        for arrival in taken.arrivals:
            stream.ledger.receive()
            stream.put(arrival)
            if taken.is_done:
                stream.nowcaster.pass_over()
            else:
                self._issue(stream)
        self._group.done(taken)

    def _stream(self, taken: Taken) -> Stream:
        place = taken.partition, taken.stream
        if place not in self._streams:
            ledger = self._ledgers.setdefault(taken.stream, Ledger())
            self._streams[place] = Stream(
                self._make(taken.stream, ledger), self._group, ledger=ledger, status=self._status
            )
        return self._streams[place]

    def _issue(self, stream: Stream) -> None:
        nowcaster = stream.nowcaster
        try:
            work = nowcaster.begin()
            if work is None:
                return
            made = nowcaster.forecast(work)
        except AccuracyError as error:
            self._not_finite += 1
            stream.failed(error)
            return
        nowcast = stream.publish(work, *made)
        for sink in self._sinks:
            self._write(sink, nowcast)
        self._nowcasts[stream.name] = self._nowcasts.get(stream.name, 0) + 1

    def _write(self, sink: Sink, nowcast: Nowcast) -> None:
        """Write it, trying again for a while.

        Raises:
            SinkError: it could not.
        """
        tries = 0
        while (error := _trouble(sink, nowcast)) is not None:
            tries += 1
            if tries == _TRIES:
                raise error
            if tries == 1:
                self._status.line(f"{sink.name}: {error}; it is tried again", "sink", "warning")
            self._stop.wait(_TRY_S)

    def _idle_step(self) -> bool:
        """One step of the work ahead, of each stream in turn; False where there is none."""
        streams = list(self._streams.values())
        for _ in streams:
            self._turn = (self._turn + 1) % len(streams)
            if streams[self._turn].nowcaster.idle_step():
                return True
        return False

    def _check_there(self, waited_s: float) -> None:
        health = self._group.health.now()
        if health.state == "down" or not health.was_up:
            raise SourceLostError(
                f"{self._group.name} did not answer when {waited_s:g} s were over: "
                f"{health.reason or 'no answer'}",
                expected="a broker that is up, or comes up within --idle-timeout",
                fix="check that it runs, its address and your rights",
            )

    def _line(self) -> str:
        counts = self._group.counts
        return (
            f"{sum(self._nowcasts.values())} nowcasts; {len(self._streams)} streams in "
            f"{counts.partitions} of {counts.of} partitions; {counts.lag} records behind"
        )


def _trouble(sink: Sink, nowcast: Nowcast) -> SinkError | None:
    """Write a nowcast; why that did not go."""
    try:
        sink.write(nowcast)
    except SinkError as error:
        return error
    return None
