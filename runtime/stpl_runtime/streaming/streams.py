"""The loop of one stream or several: what arrived, the nowcasts, the sinks, the work ahead."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from stpl_core.errors import AccuracyError
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.sink import ReportsFiles
from stpl_runtime.streaming.batching import Batcher
from stpl_runtime.streaming.publisher import LIMIT, Publisher
from stpl_runtime.streaming.report import StreamsReport
from stpl_runtime.streaming.service_manager import ServiceManager
from stpl_runtime.streaming.status import counts_text
from stpl_runtime.streaming.stream import Stream

_WAIT_S = 0.2
"""How long the loop sleeps when nothing arrives before it looks at its other duties."""
_ALL_ENDED = "the source ended"


class Streams:
    """One stream or several in one loop, over one session; batched where that pays."""

    def __init__(self, streams: Sequence[Stream], manager: ServiceManager | None = None) -> None:
        """Put them together.

        Args:
            streams: their nowcasters share a session and a horizon.
            manager: notified of how it goes; None: the one that started this process.
        """
        self._manager = manager or ServiceManager()
        self.streams = tuple(streams)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._batcher: Batcher | None = None
        self._publishers: tuple[Publisher, ...] = ()
        self._lines: deque[str] = deque()  # from the sinks' threads
        self._turn = 0
        self.ended = "not started"
        """Why it ended, in words."""

    def stop(self) -> None:
        """End `run` soon; may be called from any thread or a signal handler.

        `_wake` is left alone: a handler may interrupt the loop while it holds that one's lock.
        """
        self._stop.set()

    def wait_for_stop(self) -> None:
        """Return once `stop` was called."""
        while not self._stop.is_set():  # a handler of signals may call it at any moment
            self._manager.alive(lambda: self.ended)
            time.sleep(_WAIT_S)
        self._manager.stopping()

    def run(
        self, *, max_nowcasts: int | None = None, idle_timeout_s: float | None = None
    ) -> StreamsReport:
        """Stream until stopped, or until every source has ended.

        Args:
            max_nowcasts: end after so many, of all streams together.
            idle_timeout_s: end when nothing arrived for so long.

        Raises:
            SourceLostError: a source went away, or was never there when `idle_timeout_s` was
                over; raised at the end: the others went on until then;
                `report` still gives the counts.
            StplError: another error of a source.
        """
        self.ended = ended = "error"
        self._warm_up()
        publishers = self._publish_in_threads()
        for stream in self.streams:
            of_its_own = [publishers[id(sink)] for sink in stream.sinks]
            stream.start(self._wake, of_its_own)
        self._manager.ready()
        try:
            with self.streams[0].status:
                try:
                    ended = self._loop(max_nowcasts, idle_timeout_s)
                finally:
                    if self._stop.is_set():
                        self._manager.stopping()
                    for stream in self.streams:
                        stream.close()
                    for publisher in publishers.values():
                        publisher.close()
                    self._log_lines()
                    for stream in self.streams:
                        stream.finish(ended)
        finally:
            self.ended = ended
        self._log_sinks()
        for stream in self.streams:
            if stream.error is not None:
                raise stream.error
        return self.report()

    def report(self) -> StreamsReport:
        """The counts so far."""
        reports = {stream.name: stream.report() for stream in self.streams}
        batcher = self._batcher
        if batcher is None:
            return StreamsReport(self.ended, reports)
        return StreamsReport(self.ended, reports, batcher.sizes, batcher.gap)

    def _publish_in_threads(self) -> dict[int, Publisher]:
        """A thread for each sink, by its id; streams may share sinks."""
        every = {id(sink): sink for stream in self.streams for sink in stream.sinks}
        made: dict[int, Publisher] = {}
        for key, sink in sorted(every.items(), key=lambda item: isinstance(item[1], ReportsFiles)):
            first = set(map(id, sink.beside)) if isinstance(sink, ReportsFiles) else set()
            made[key] = Publisher(
                sink,
                self._lines.append,
                waits=any(stream.policy != "latest" for stream in self.streams),
                limit=LIMIT * len(self.streams),
                after=[publisher for other, publisher in made.items() if other in first],
                done=self._wake.set,
                stopped=self._stop.is_set,
            )
        self._publishers = tuple(made.values())
        return made

    def _log_lines(self) -> None:
        while self._lines:
            self.streams[0].log(self._lines.popleft(), "sink")

    def _log_sinks(self) -> None:
        self._log_lines()
        for publisher in self._publishers:
            if publisher.error is not None:
                raise publisher.error

    def _warm_up(self) -> None:
        first = self.streams[0].nowcaster
        first.warm_up()
        self._batcher = self._new_batcher(first)
        if len(self.streams) > 1:
            self._batcher.measure(len(self.streams))

    def _new_batcher(self, first: Nowcaster) -> Batcher:
        return Batcher(first.session, first.manifest, first.horizon, chances=first.chances)

    def _loop(self, max_nowcasts: int | None, idle_timeout_s: float | None) -> str:
        last = time.monotonic()
        while not self._stop.is_set():
            self._wake.clear()
            self._manager.alive(self._line)
            arrived = self._take_in()
            made = self._issue()
            self._log_sinks()
            for stream in self.streams:
                stream.attend()
            made_so_far = sum(stream.published for stream in self.streams)
            if max_nowcasts is not None and made_so_far >= max_nowcasts:
                return f"{max_nowcasts} nowcast{'s' if max_nowcasts != 1 else ''} made"
            if any(arrived):
                last = time.monotonic()
            elif not made and not self._idle_step():
                if all(stream.over for stream in self.streams):
                    return _ALL_ENDED
                if idle_timeout_s is not None and time.monotonic() - last >= idle_timeout_s:
                    for stream in self.streams:
                        stream.give_up(idle_timeout_s)
                    return f"nothing arrived for {idle_timeout_s:g} s"
                self._wake.wait(_WAIT_S)
        return "stopped"

    def _take_in(self) -> list[bool]:
        """Put what arrived into the windows; of each stream, whether anything did."""
        return [stream.take_in() for stream in self.streams]

    def _line(self) -> str:
        """How it goes, in one line."""
        report = self.report()
        return f"{report.nowcasts} nowcasts; {counts_text(report.counts)}"

    def _issue(self) -> bool:
        """Make the nowcasts that can be made; False where there are none."""
        works = []
        for stream in self.streams:
            try:
                work = stream.nowcaster.begin()
            except AccuracyError as error:
                stream.failed(error)
                continue
            if work is not None:
                works.append((stream, work))
        assert self._batcher is not None, "_warm_up comes first"
        for stream, work, result in self._batcher.finish(works):
            if isinstance(result, AccuracyError):
                stream.failed(result)
            else:
                stream.publish(work, *result)
        return bool(works)

    def _idle_step(self) -> bool:
        """One step of work ahead, of each stream in turn; False where there is none."""
        for _ in self.streams:
            self._turn = (self._turn + 1) % len(self.streams)
            if self.streams[self._turn].nowcaster.idle_step():
                return True
        return False
