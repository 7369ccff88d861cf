"""What a stream reports: to the person at the terminal, and to those that watch it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

from stpl_core.frames import Frame
from stpl_core.safety.printable import printable
from stpl_runtime.links.health import HealthNow
from stpl_runtime.nowcasting.nowcaster import Nowcaster, Put
from stpl_runtime.streaming.bad_frame_log import Fault, Faults
from stpl_runtime.streaming.status import Status
from stpl_runtime.timing import time_text
from stpl_runtime.watching.watcher import Watcher

_LONGEST_LINE = 2000
_ONCE = "(reported once; see the counts)"


class StreamLog:
    """The log of one stream; what may come often is there once, and then in the counts."""

    def __init__(self, name: str, status: Status, watchers: Sequence[Watcher]) -> None:
        """Prepare.

        Args:
            name: of the stream among several; empty where there is one.
            status: shows lines to the person.
            watchers: notified of frames, nowcasts and problems.
        """
        self._name, self._status, self._watchers = name, status, tuple(watchers)
        self._logged: set[str] = set()
        self._faults = Faults()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The bad frames, by what is wrong with them."""
        return self._faults.seen()

    def line(self, line: str) -> None:
        """A line of this stream."""
        self.shared_line(f"{self._name}: {line}" if self._name else line)

    def shared_line(self, line: str) -> None:
        """A line that is of no stream alone."""
        line = printable(line, _LONGEST_LINE)
        self._status.line(line)
        self.notify(lambda watcher: watcher.problem(line))

    def once(self, kind: str, line: str) -> None:
        """The first of its kind; the others are in the counts."""
        if kind not in self._logged:
            self._logged.add(kind)
            self.line(f"{line} {_ONCE}")

    def bad(self, source_id: str, reason: str) -> None:
        """A bad frame; the first of its kind is logged."""
        line = self._faults.add(source_id, reason)
        if line is not None:
            self.line(f"{line} {_ONCE}")

    def put(self, frame: Frame, put: Put, nowcaster: Nowcaster) -> None:
        """A frame was put into the window, or not."""
        self.notify(lambda watcher: watcher.frame(frame, put.verdict, self._name))
        if put.notice:
            self.line(put.notice)
        named = f"frame {frame.source_id} of {time_text(frame.valid_time)}"
        if put.verdict == "bad":
            self.bad(frame.source_id, put.reason)
        elif put.verdict == "late":
            late = f"more than {nowcaster.window.lateness} slots older than the newest frame"
            self.once("late", f"{named} is late: {late}")
        elif put.verdict == "dropped":
            self.once("dropped", f"{named} is off the grid of {_grid_text(nowcaster)}")

    def health(self, source: str, before: HealthNow, now: HealthNow) -> None:
        """The source's state, where it changed since `before`."""
        if now.state == "down" and before.state != "down":
            self.line(f"{source} is down: {now.reason}; it is tried again")
        elif now.state == "up" and now.reconnects > before.reconnects:
            self.line(f"{source} is up again")

    def notify(self, event: Callable[[Watcher], None]) -> None:
        """Pass an event on to everyone who watches."""
        for watcher in self._watchers:
            self._notify_one(watcher, event)

    def _notify_one(self, watcher: Watcher, event: Callable[[Watcher], None]) -> None:
        """A fault of one who watches is a bug; it is printed once, and the stream goes on."""
        try:
            event(watcher)
        except Exception:
            if "watcher" not in self._logged:
                self._logged.add("watcher")
                traceback.print_exc()


def _grid_text(nowcaster: Nowcaster) -> str:
    grid = nowcaster.window.grid
    assert grid is not None, "a frame off the grid"
    return (
        f"{grid.cadence_s:g} s from {time_text(grid.phase)} on; if that is not the "
        "cadence of this source, restart with --cadence SECONDS"
    )
