"""Sources of live frames. Read this file before `sources/`.

A source is one module under `sources/`; its word in `SOURCES` is the scheme of the URL-like word
that `stpl-deploy stream` takes. A path is what lies there: a `folder`, a `video` file, or an
archive to `replay`; `-` is standard input.

A package of yours adds a source by an entry point of the group `stpl_deploy.sources`: the name is
the scheme, the value a function `open_source(rest, spec) -> Source`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Protocol, cast, runtime_checkable

from stpl_core.codec import FrameCodec
from stpl_core.errors import UsageError
from stpl_core.frames import Frame, FrameShape
from stpl_core.grid import Grid
from stpl_core.reader import ReadOptions
from stpl_core.readers.fit import Fit
from stpl_core.readers.video import SUFFIXES as FILMS
from stpl_core.readers.zarr import recognises as is_zarr
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.plugins import known_words, load_word
from stpl_runtime.sources.suggestions import suggested

GROUP = "stpl_deploy.sources"
"""The group of entry points of other packages."""

SOURCES: dict[str, str] = {
    "folder": "stpl_runtime.sources.folder:open_source",
    "http": "stpl_runtime.sources.http:open_http",
    "https": "stpl_runtime.sources.http:open_https",
    "mjpeg+http": "stpl_runtime.sources.mjpeg:open_http",
    "mjpeg+https": "stpl_runtime.sources.mjpeg:open_https",
    "hls+http": "stpl_runtime.sources.hls:open_http",
    "hls+https": "stpl_runtime.sources.hls:open_https",
    "s3": "stpl_runtime.sources.s3:open_s3",
    "gs": "stpl_runtime.sources.s3:open_gs",
    "abfs": "stpl_runtime.sources.s3:open_abfs",
    "video": "stpl_runtime.sources.video:open_source",
    "rtsp": "stpl_runtime.sources.rtsp:open_rtsp",
    "rtsps": "stpl_runtime.sources.rtsp:open_rtsps",
    "rtmp": "stpl_runtime.sources.rtsp:open_rtmp",
    "tcp": "stpl_runtime.sources.rtsp:open_tcp",
    "udp": "stpl_runtime.sources.rtsp:open_udp",
    "replay": "stpl_runtime.sources.replay:open_source",
    "camera": "stpl_runtime.sources.camera:open_source",
    "stdin": "stpl_runtime.sources.stdin:open_source",
    "mqtt": "stpl_runtime.sources.mqtt:open_mqtt",
    "mqtts": "stpl_runtime.sources.mqtt:open_mqtts",
    "mqtt+ws": "stpl_runtime.sources.mqtt:open_mqtt_ws",
    "mqtt+wss": "stpl_runtime.sources.mqtt:open_mqtt_wss",
    "kafka": "stpl_runtime.sources.kafka:open_source",
    "zmq": "stpl_runtime.sources.zmq:open_zmq",
    "zmq+ipc": "stpl_runtime.sources.zmq:open_zmq_ipc",
}
"""Scheme -> where `open_source(rest, spec)` lives; `rest` is what follows `SCHEME:`, with its
`//` where one was given (`http://host/x` -> `//host/x`)."""
_ADDRESSES = frozenset(SOURCES) - {"folder", "video", "replay", "camera", "stdin", "zmq+ipc"}
"""Those that want `//`."""


@dataclass(frozen=True)
class Seen:
    """What one frame is, before anything is done to it."""

    shape: FrameShape
    quantity: str = "grey level"
    units: str = "1"
    form: str = ""
    """Reader, or container, codec and pixel format."""
    low: float | None = None
    high: float | None = None
    """Least and greatest value; None where no pixel has one."""
    grid: Grid | None = None
    has_time: bool = True
    """Whether it came with a time, in what way ever."""


@dataclass(frozen=True)
class SourceSpec:
    """What a source must know of the model it feeds, and how time is found."""

    shape: FrameShape
    codec: FrameCodec
    time_format: str | None = None
    """Pattern of the time in the name; None: what `stpl_core.readers.stamps` finds, else index
    times cadence."""
    cadence_s: float | None = None
    mtime: bool = False
    """Take a file's modification time; only when asked for."""
    reader: str | None = None
    """Word of the reader of files and payloads (`stpl_core.readers`); None finds it."""
    variable: str | None = None
    """Which one, where a file holds several."""
    reading: ReadOptions = field(default_factory=ReadOptions)
    """What else the user says about reading: units, missing values, levels."""
    fit: Fit | None = None
    """How frames of another size come to the model's grid, as in training; None refuses them."""
    grids: tuple[Grid, ...] = ()
    """Of the training; frames whose pixels have another size are bad. Empty: any are taken."""
    options: Mapping[str, str] = field(default_factory=dict)
    """`--source-option NAME=VALUE`; each source checks which it has (`words.check_options`)."""
    look: Callable[[Seen], None] | None = None
    """Frames are given as they come, for no model, and this is called for each."""


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

    @classmethod
    def now(cls, item: Frame | BadFrame) -> Arrival:
        """An arrival at this moment."""
        return cls(item, monotonic(), datetime.now(timezone.utc))


class Source(Protocol):
    """Yields what arrives until it ends or `stop` is set."""

    name: str
    """What it is called in messages; without credentials."""
    health: Health
    """Whether it is there; kept up to date by its thread."""
    waits: bool
    """True where frames wait at the source while the queue is full (files do); False where the
    oldest in the queue must make room (a camera)."""

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield arrivals in the order they are seen; return soon after `stop` is set.

        Raises:
            SourceLostError: the source went away for good.
        """
        ...


@runtime_checkable
class Replays(Protocol):
    """A source that knows whether its frames are of an archive."""

    replays: bool
    """True: how long ago they were observed means nothing."""


@runtime_checkable
class Notes(Protocol):
    """A source that may have something to report, once, that is no failure."""

    note: str
    """Empty while there is nothing; without credentials."""


def open_source(word: str, spec: SourceSpec) -> Source:
    """Open what `stpl-deploy stream` was given: `SCHEME:REST`, `SCHEME://REST`, a path or `-`.

    Raises:
        UsageError: an unknown scheme, or a source that cannot be opened.
    """
    scheme, rest = scheme_of(word)
    words = known_words(SOURCES, GROUP)
    if scheme not in words:
        raise UsageError(
            f"unknown source {scheme}",
            expected=f"a path, or one of {', '.join(f'{name}:' for name in words)}",
            fix=without_credentials(suggested(scheme, rest, words, _ADDRESSES)),
        )
    if scheme in _ADDRESSES and not rest.startswith("//"):
        raise UsageError(
            f"{scheme}: without // after it names no host",
            expected=f"{scheme}://...",
            fix=without_credentials(f"{scheme}://{rest.lstrip('/') or '...'}"),
        )
    return cast("Source", load_word("source", scheme, SOURCES, GROUP)(rest, spec))


def scheme_of(word: str) -> tuple[str, str]:
    """The scheme of a word, and the rest of it."""
    if word == "-":
        return "stdin", ""
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", word)
    path = Path(word).expanduser()
    if match is not None and not path.exists():
        return match.group(1).lower(), match.group(2)
    if path.is_file():
        return ("video" if path.name.lower().endswith(FILMS) else "replay"), word
    try:
        return ("replay" if is_zarr(path) else "folder"), word
    except PermissionError:
        return "folder", word  # which reports it
