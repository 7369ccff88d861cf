"""What a stream reports: to the person at the terminal, and to those that watch it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any

from stpl_core.frames import Frame
from stpl_core.log import Level, is_logged
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

    def line(self, line: str, event: str = "note", level: Level = "warning", **facts: Any) -> None:
        """A line of this stream."""
        text = f"{self._name}: {line}" if self._name else line
        self.shared_line(text, event, level, stream=self._name, **facts)

    def shared_line(
        self, line: str, event: str = "note", level: Level = "warning", **facts: Any
    ) -> None:
        """A line that is of no stream alone."""
        line = printable(line, _LONGEST_LINE)
        self._status.line(line, event, level, **facts)
        self.notify(lambda watcher: watcher.problem(line))

    def once(self, kind: str, line: str, level: Level = "warning", **facts: Any) -> None:
        """The first of its kind; the others are in the counts."""
        if kind not in self._logged:
            self._logged.add(kind)
            self.line(f"{line} {_ONCE}", kind, level, **facts)

    def bad(self, source_id: str, reason: str) -> None:
        """A bad frame; the first of its kind is logged."""
        line = self._faults.add(source_id, reason)
        if line is not None:
            self.line(f"{line} {_ONCE}", "bad frame", frame=source_id, reason=reason)

    def put(self, frame: Frame, put: Put, nowcaster: Nowcaster) -> None:
        """A frame was put into the window, or not."""
        self.notify(lambda watcher: watcher.frame(frame, put.verdict, self._name))
        if put.notice:
            self.line(put.notice, "time line")
        self._resized(frame)
        at = time_text(frame.valid_time)
        facts: dict[str, Any] = {"frame": frame.source_id, "valid_time": at}
        named = f"frame {frame.source_id} of {at}"
        if is_logged("debug"):
            of = f"{self._name}: " if self._name else ""
            text = printable(f"{of}{named}: {put.verdict}", _LONGEST_LINE)
            self._status.line(
                text, "frame", "debug", stream=self._name, verdict=put.verdict, **facts
            )
        if put.verdict == "bad":
            self.bad(frame.source_id, put.reason)
        elif put.verdict == "late":
            late = f"more than {nowcaster.window.lateness} slots older than the newest frame"
            self.once("late", f"{named} is late: {late}", **facts)
        elif put.verdict == "dropped":
            off = f"{named} is off the grid of {_grid_text(nowcaster)}"
            self.once("dropped", off, **facts)

    def _resized(self, frame: Frame) -> None:
        """What was done to frames of another size: no problem, so only the log has it."""
        note = frame.notes.get("resized")
        if note is None or "resized" in self._logged:
            return
        self._logged.add("resized")
        of = f"{self._name}: " if self._name else ""
        size = "x".join(map(str, frame.data.shape))
        line = f"{of}frames are the {note}, as {size}; --source-option resize=none refuses them"
        self._status.line(printable(line, _LONGEST_LINE), "resized", "info", stream=self._name)

    def health(self, source: str, before: HealthNow, now: HealthNow) -> None:
        """The source's state, where it changed since `before`."""
        if now.state == "down" and before.state != "down":
            line = f"{source} is down: {now.reason}; it is tried again"
            self.line(line, "source down", source=source, reason=now.reason)
        elif now.state == "up" and now.reconnects > before.reconnects:
            self.line(f"{source} is up again", "source up", source=source)

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
