"""How long a batch waits for the streams that may still join it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from stpl_runtime.streaming.stream import Stream


class Gathering:
    """A batch is sent when every live stream is due, or the first of them has waited enough."""

    def __init__(self, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nobody waiting.

        Args:
            wait_s: no nowcast waits longer for another stream, from the arrival of its frame.
            clock: that arrivals are dated by.
        """
        self.wait_s, self._clock = wait_s, clock
        self._since: dict[str, float] = {}  # stream -> when it became due

    def sent(self) -> None:
        """The batch is on its way; a frame that comes from now on waits anew."""
        self._since = {}

    def left_s(self, streams: Sequence[Stream]) -> float | None:
        """How long the batch may still wait; 0: it is to be sent; None: nothing is due."""
        now = self._clock()
        due = [stream for stream in streams if stream.nowcaster.ready]
        self._since = {
            stream.name: self._since.get(stream.name, _arrived(stream, now)) for stream in due
        }
        if not due:
            return None
        if not any(is_expected(stream) for stream in streams if stream.name not in self._since):
            return 0.0
        return max(0.0, min(self._since.values()) + self.wait_s - now)


def is_expected(stream: Stream) -> bool:
    """Whether a stream's next frame may make it due: its source is there, its window all but full.

    A source that is silent cannot be known from one whose frame is about to come; the bound of the
    wait is for it.
    """
    down = stream.source.health.now().state == "down"
    return not stream.over and not down and stream.nowcaster.frames_to_next <= 1


def _arrived(stream: Stream, now: float) -> float:
    """When the frame came that made it due: it may have waited behind another batch since then."""
    window = stream.nowcaster.window
    newest = None if window.newest is None else window.entry(window.newest)
    return now if newest is None or newest.arrived is None else newest.arrived
