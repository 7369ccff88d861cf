"""Running streams as the page asks them."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from stpl_runtime.links.health import HealthNow
from stpl_runtime.source import Replays
from stpl_runtime.streaming.report import StreamReport
from stpl_runtime.streaming.stream import Stream

_FRESH_S = 0.2
"""Pages that ask within so many seconds get the same report."""


class StreamFeed:
    """One stream; keeps `stpl_runtime.page.hub.Feed`."""

    def __init__(self, stream: Stream) -> None:
        """Ask `stream`."""
        self._stream = stream
        self.name = stream.name
        self.source = stream.source.name
        self._known: tuple[float, StreamReport] | None = None

    def health(self) -> HealthNow:
        """See `Feed`."""
        return self._stream.source.health.now()

    def report(self) -> StreamReport:
        """See `Feed`."""
        known = self._known
        if known is not None and monotonic() - known[0] < _FRESH_S:
            return known[1]
        report = self._stream.report()
        self._known = (monotonic(), report)
        return report

    def frames_to_next(self) -> int:
        """See `Feed`."""
        return self._stream.nowcaster.frames_to_next

    def is_replay(self) -> bool:
        """See `Feed`."""
        source = self._stream.source
        return isinstance(source, Replays) and source.replays

    def stage(self) -> str:
        """See `Feed`."""
        begun = self._stream.ended != "not started"
        return "" if begun else "the model is loaded and run once; then frames are read"


def feeds_of(streams: Sequence[Stream]) -> list[StreamFeed]:
    """Each of them."""
    return [StreamFeed(stream) for stream in streams]
