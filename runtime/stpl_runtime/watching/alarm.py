"""The alarm on skill: raised after so many frames in a row that were worse than persistence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

Turn = Literal["", "raised", "cleared"]


@dataclass(frozen=True)
class AlarmNow:
    """The state at one moment."""

    after: int
    """Frames in a row that raise it, and that clear it."""
    standing: bool = False
    since: datetime | None = None
    """Valid time of the frame that raised it; None where it does not stand."""
    run: int = 0
    """Frames in a row that speak for the other state."""
    raised: int = 0
    """Times that it was raised."""


class Alarm:
    """Counts frames whose nowcasts were worse than persistence."""

    def __init__(self, after: int) -> None:
        """Args: after: frames in a row; as many good ones clear it, so that it does not flutter."""
        self.now = AlarmNow(after)

    def frame(self, worse: bool, valid_time: datetime) -> Turn:
        """A frame was scored, all its lead times together."""
        now = self.now
        if worse == now.standing:
            self.now = replace(now, run=0)
            return ""
        if now.run + 1 < now.after:
            self.now = replace(now, run=now.run + 1)
            return ""
        if worse:
            self.now = AlarmNow(now.after, True, valid_time, 0, now.raised + 1)
            return "raised"
        self.now = AlarmNow(now.after, raised=now.raised)
        return "cleared"
