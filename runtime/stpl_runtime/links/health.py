"""Whether a live source is there: set by its thread, read by the log, the page and the metrics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Literal

from stpl_core.safety.printable import printable

LONGEST_REASON = 500
"""Of a text that others wrote, and that log and page repeat."""
State = Literal["connecting", "up", "down", "ended"]


@dataclass(frozen=True)
class HealthNow:
    """The state at one moment."""

    state: State
    since: datetime
    """When it came into this state, UTC."""
    reason: str = ""
    """Why it is down; empty for other states. Without credentials."""
    reconnects: int = 0
    """Times that it came up again after it was down."""
    was_up: bool = False
    """Whether it ever was up, or came to its end."""


class Health:
    """One source's state; thread-safe. `up` and `down` may be called as often as one likes."""

    def __init__(self) -> None:
        """Start as `connecting`."""
        self._lock = threading.Lock()
        self._now = HealthNow("connecting", datetime.now(timezone.utc))

    def now(self) -> HealthNow:
        """The state now."""
        return self._now

    def up(self) -> None:
        """It answers."""
        self._change("up", "")

    def down(self, reason: str) -> None:
        """It does not answer; it is being tried again."""
        self._change("down", printable(reason, LONGEST_REASON))

    def ended(self) -> None:
        """It came to its end; nothing more will come."""
        self._change("ended", "")

    def _change(self, state: State, reason: str) -> None:
        with self._lock:
            before = self._now
            if before.state == state:
                self._now = replace(before, reason=reason)
                return
            again = before.state == "down" and state == "up"
            self._now = HealthNow(
                state,
                datetime.now(timezone.utc),
                reason,
                before.reconnects + again,
                was_up=before.was_up or state in ("up", "ended"),
            )
