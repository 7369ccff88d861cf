"""Sources of live frames. Read this file before `sources/`.

A source is one module under `sources/`; its word in `SOURCES` is the scheme of the URL-like word
that `stpl-deploy stream` takes. A plain path means `folder`.
"""

from __future__ import annotations

import difflib
import importlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, cast

from stpl_deploy.codec import FrameCodec
from stpl_deploy.errors import UsageError
from stpl_deploy.frames import Frame, FrameShape

SOURCES: dict[str, str] = {
    "folder": "stpl_runtime.sources.folder:open_source",
}
"""Scheme -> where `open_source(rest_of_url, spec)` lives."""


@dataclass(frozen=True)
class SourceSpec:
    """What a source must know of the model it feeds, and how time is found."""

    shape: FrameShape
    codec: FrameCodec
    time_format: str | None = None
    """strptime pattern found in the name; None: 14 or 12 digits, else index times cadence."""
    cadence_s: float | None = None
    mtime: bool = False
    """Take a file's modification time; only when asked for."""


@dataclass(frozen=True)
class BadFrame:
    """Something that arrived and is not a frame: counted as bad, reported, stepped over."""

    source_id: str
    reason: str


@dataclass(frozen=True)
class Arrival:
    """What a source yields: a frame or a bad one, and when it arrived."""

    item: Frame | BadFrame
    arrived: float
    """time.monotonic() when it was seen whole."""
    arrived_at: datetime
    """The same moment, UTC."""


class Source(Protocol):
    """Yields what arrives until it ends or `stop` is set."""

    name: str
    """What it is called in messages."""
    waits: bool
    """True where frames wait at the source while the queue is full (files do); False where the
    oldest in the queue must make room (a camera)."""

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield arrivals in the order they are seen; return soon after `stop` is set.

        Raises:
            SourceLostError: the source went away for good.
        """
        ...


def open_source(word: str, spec: SourceSpec) -> Source:
    """Open what `stpl-deploy stream` was given: `SCHEME:REST`, `SCHEME://REST` or a path.

    Raises:
        UsageError: an unknown scheme, or a source that cannot be opened.
    """
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):(?://)?(.*)", word)
    if match is None or Path(word).exists():
        scheme, rest = "folder", word
    else:
        scheme, rest = match.group(1).lower(), match.group(2)
    if scheme not in SOURCES:
        near = difflib.get_close_matches(scheme, SOURCES, n=1)
        raise UsageError(
            f"unknown source {scheme}",
            expected=f"a path, or one of {', '.join(f'{name}:' for name in SOURCES)}",
            fix=f"{near[0] if near else 'folder'}:{rest}",
        )
    module_name, _, function = SOURCES[scheme].partition(":")
    return cast("Source", getattr(importlib.import_module(module_name), function)(rest, spec))
