"""Those who watch a stream: the status line, live skill, the page, the metrics."""

from __future__ import annotations

from typing import Protocol

from stpl_core.frames import Frame
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict


class Watcher(Protocol):
    """Gets what happens, in the thread that makes nowcasts: what it does must be quick."""

    def frame(self, frame: Frame, verdict: Verdict, stream: str) -> None:
        """A frame was put into the window of `stream`, or why not."""
        ...

    def nowcast(self, nowcast: Nowcast) -> None:
        """A nowcast was made; `nowcast.stream` says for which stream."""
        ...

    def problem(self, line: str) -> None:
        """Something went wrong, or is well again; the stream goes on."""
        ...
