"""What is asked of `stream` and `serve`, and where their summary goes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from stpl_core.log import LogOptions
from stpl_core.options import RunLimits, StreamOptions
from stpl_deploy.cli.live.options import PageOptions, SkillOptions
from stpl_deploy.cli.options.trust import TrustOptions


@dataclass(frozen=True)
class Live:
    """A stream, and how it is run and watched."""

    bundle: Path
    stream: StreamOptions
    limits: RunLimits
    skill: SkillOptions
    page: PageOptions | None
    """None: there is no page."""
    trust: TrustOptions = field(default_factory=TrustOptions)
    log: LogOptions = field(default_factory=LogOptions)
    json: bool = False
    stays: bool = False
    """Whether the page stays up when the source has ended."""
    on_page: Callable[[str], None] = lambda url: None
    """Given the page's address once it answers."""


def summary_place(live: Live) -> AbstractContextManager[object]:
    """Where the summary goes: stdout, or stderr where a sink writes its lines to stdout."""
    from stpl_runtime.sinks.jsonl import is_stdout

    taken = any(
        word.startswith("jsonl:") and is_stdout(word.removeprefix("jsonl:"))
        for word in live.stream.sinks
    )
    return redirect_stdout(sys.stderr) if taken else nullcontext()
