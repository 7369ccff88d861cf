"""The log on stderr: plain lines for a person, or a JSON object a line for a machine.

    {"time": "2026-05-01T12:00:03.120Z", "level": "warning", "event": "source down", "message": ...}

What else a line is about stands beside these four, under its own name: `stream`, `frame`, `bad` ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, get_args

from stpl_core.json_numbers import finite
from stpl_core.option import Option

Level = Literal["debug", "info", "warning", "error"]
_LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class LogOptions:
    """How the log is written."""

    log_format: Annotated[
        Literal["plain", "json"], Option("On stderr: lines to read, or a JSON object each.")
    ] = "plain"
    log_level: Annotated[
        Level, Option("Leave out what matters less; debug has a line for each frame.")
    ] = "info"


_now = LogOptions()


def set_log(options: LogOptions) -> None:
    """Write the log of this process like this from now on."""
    global _now
    _now = options


def log_is_json() -> bool:
    """Whether lines are JSON."""
    return _now.log_format == "json"


def is_logged(level: Level) -> bool:
    """Whether lines of this level are written."""
    return _LEVELS.index(level) >= _LEVELS.index(_now.log_level)


def log_text(message: str, event: str, level: Level, **facts: Any) -> str:
    """A line as it is written, without its end."""
    if not log_is_json():
        return message
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = {"time": now, "level": level, "event": event, "message": message}
    line |= {name: value for name, value in facts.items() if value not in (None, "")}
    return json.dumps(finite(line), default=str)


def log(message: str, event: str = "note", level: Level = "info", **facts: Any) -> None:
    """Write a line, where its level is asked for.

    Raises:
        OSError: stderr takes nothing.
    """
    if is_logged(level):
        sys.stderr.write(f"{log_text(message, event, level, **facts)}\n")
        sys.stderr.flush()
