"""What a person sees of a running stream, on stderr: a live line, or plain lines in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from stpl_core.log import Level, is_logged, log, log_is_json
from stpl_runtime.ledger import Counts
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import duration_text, time_text

if TYPE_CHECKING:
    from rich.live import Live

_EVERY_S = 1.0
"""Plain lines about nowcasts come no more often than this."""


class Status:
    """Shows nowcasts and problems; used as a context manager."""

    def __init__(self) -> None:
        """Write to stderr."""
        self._live: Live | None = None
        self._last_s = float("-inf")

    def __enter__(self) -> Status:
        """Open the live line where stderr is a terminal."""
        if sys.stderr.isatty() and not log_is_json():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                "waiting for frames", console=Console(stderr=True), auto_refresh=False
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last line standing."""
        if self._live is not None:
            self._live.stop()

    def line(self, line: str, event: str = "note", level: Level = "info", **facts: Any) -> None:
        """A line that stays: a problem, or how it goes."""
        if self._live is None:
            with contextlib.suppress(OSError):  # a full disk under a log ends no stream
                log(line, event, level, **facts)
        elif is_logged(level):
            from rich.text import Text

            self._live.console.print(Text(line))

    def nowcast(self, nowcast: Nowcast, counts: Counts, skipped: int) -> None:
        """A nowcast was made."""
        now = time.monotonic()
        if self._live is None and now - self._last_s < _EVERY_S and not log_is_json():
            return
        self._last_s = now
        issued = "" if nowcast.issue_time is None else f" {time_text(nowcast.issue_time)}"
        latency = "" if nowcast.latency_ms is None else f" in {duration_text(nowcast.latency_ms)}"
        of = f"{nowcast.stream}: " if nowcast.stream else ""
        text = f"{of}nowcast{issued}: {len(nowcast.frames)} frames{latency}; {counts_text(counts)}"
        if skipped:
            text += f"; {skipped} nowcasts skipped"
        if self._live is None:
            self.line(
                text,
                "nowcast",
                stream=nowcast.stream,
                issue_time=issued.strip(),
                lead_times=len(nowcast.frames),
                latency_ms=nowcast.latency_ms,
                stand_ins=sum(map(bool, nowcast.context_fill)) or None,
                skipped=skipped,
                counts=asdict(counts),
            )
        else:
            from rich.text import Text

            self._live.update(Text(text), refresh=True)


def counts_text(counts: Counts) -> str:
    """The counts in one line; those that are zero are left out."""
    parts = [
        f"{getattr(counts, name)} {name}"
        for name in ("used", "late", "duplicate", "dropped", "bad", "pending")
        if getattr(counts, name)
    ]
    return f"received {counts.received} = {' + '.join(parts) or '0'}"
