"""What a stream tells of itself: to the person at the terminal, and to those that watch it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence

from stpl_core.frames import Frame
from stpl_runtime.links.health import HealthNow
from stpl_runtime.nowcasting.nowcaster import Nowcaster, Put
from stpl_runtime.streaming.bad_frame_log import Fault, Faults
from stpl_runtime.streaming.status import Status
from stpl_runtime.timing import time_text
from stpl_runtime.watching.watcher import Watcher

_ONCE = "(told once; see the counts)"


class Teller:
    """One stream's voice; what may come often is told once, and then in the counts."""

    def __init__(self, name: str, status: Status, watchers: Sequence[Watcher]) -> None:
        """Prepare.

        Args:
            name: of the stream among several; empty where there is one.
            status: shows lines to the person.
            watchers: told of frames, nowcasts and problems.
        """
        self._name, self._status, self._watchers = name, status, tuple(watchers)
        self._told: set[str] = set()
        self._faults = Faults()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The bad frames, by what is wrong with them."""
        return self._faults.seen()

    def tell(self, line: str) -> None:
        """A line of this stream."""
        self.say(f"{self._name}: {line}" if self._name else line)

    def say(self, line: str) -> None:
        """A line that is of no stream alone."""
        self._status.say(line)
        self.watched(lambda watcher: watcher.problem(line))

    def once(self, kind: str, line: str) -> None:
        """The first of its kind; the others are in the counts."""
        if kind not in self._told:
            self._told.add(kind)
            self.tell(f"{line} {_ONCE}")

    def bad(self, source_id: str, reason: str) -> None:
        """A bad frame; the first of its kind is told."""
        line = self._faults.add(source_id, reason)
        if line is not None:
            self.tell(f"{line} {_ONCE}")

    def put(self, frame: Frame, put: Put, nowcaster: Nowcaster) -> None:
        """A frame was put into the window, or not."""
        self.watched(lambda watcher: watcher.frame(frame, put.verdict, self._name))
        if put.news:
            self.tell(put.news)
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
            self.tell(f"{source} is down: {now.reason}; it is tried again")
        elif now.state == "up" and now.reconnects > before.reconnects:
            self.tell(f"{source} is up again")

    def watched(self, tell: Callable[[Watcher], None]) -> None:
        """Tell everyone who watches."""
        for watcher in self._watchers:
            self._tell_one(watcher, tell)

    def _tell_one(self, watcher: Watcher, tell: Callable[[Watcher], None]) -> None:
        """A fault of one who watches is a bug; it is shown once, and the stream goes on."""
        try:
            tell(watcher)
        except Exception:
            if "watcher" not in self._told:
                self._told.add("watcher")
                traceback.print_exc()


def _grid_text(nowcaster: Nowcaster) -> str:
    grid = nowcaster.window.grid
    assert grid is not None, "a frame off the grid"
    return (
        f"{grid.cadence_s:g} s from {time_text(grid.phase)} on; if that is not the "
        "cadence of this source, restart with --cadence SECONDS"
    )
