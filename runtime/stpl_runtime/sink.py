"""Sinks of nowcasts. Read this file before `sinks/`.

A sink is one module under `sinks/`; its word in `SINKS` is what `--sink WORD:REST` takes.

A package of yours adds a sink by an entry point of the group `stpl_deploy.sinks`: the name is the
word, the value a function or class `(rest, spec) -> Sink`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from stpl_deploy.errors import SinkError, UsageError
from stpl_deploy.files import atomic_directory, atomic_file
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.words import known_words, load_word, nearest

GROUP = "stpl_deploy.sinks"
"""The group of entry points of other packages."""

SINKS: dict[str, str] = {
    "npz": "stpl_runtime.sinks.npz:NpzSink",
    "png": "stpl_runtime.sinks.png:PngSink",
    "gif": "stpl_runtime.sinks.gif:GifSink",
}
"""One word -> where its `(rest, spec) -> Sink` lives; `rest` is what follows the colon."""


@dataclass(frozen=True)
class SinkSpec:
    """What every sink is told."""

    keep: int | None = None
    """Nowcasts that stay in a directory, the newest ones; None keeps all."""
    keep_s: float | None = None
    """Nowcasts older than this, by issue time against the newest one, go; None keeps all."""


class Sink(Protocol):
    """Writes nowcasts; each is on disk whole, or not there, when `write` returns."""

    name: str
    """What it is called in messages: its word and path."""

    def write(self, nowcast: Nowcast) -> None:
        """Write one nowcast.

        Raises:
            SinkError: it could not be written; nothing of it is left.
        """
        ...

    def close(self) -> None:
        """Finish what is open."""
        ...


def open_sink(text: str, spec: SinkSpec | None = None) -> Sink:
    """Make a sink from `WORD:REST`.

    Raises:
        UsageError: an unknown word, or nothing after it.
        SinkError: its directory cannot be made.
    """
    word, _, rest = text.partition(":")
    words = known_words(SINKS, GROUP)
    if word not in words:
        raise UsageError(
            f"unknown sink {word}",
            expected=f"one of {', '.join(f'{name}:PATH' for name in words)}",
            fix=f"--sink {nearest(word, words, 'npz')}:{rest or 'DIRECTORY'}",
        )
    if not rest:
        raise UsageError(
            f"--sink {text} has no path", expected=f"{word}:PATH", fix=f"--sink {word}:nowcasts"
        )
    return cast("Sink", load_word("sink", word, SINKS, GROUP)(rest, spec or SinkSpec()))


def make_directory(path: Path) -> None:
    """Make a sink's directory.

    Raises:
        UsageError: a file is in the way.
        SinkError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{path} cannot be a directory: a file is in the way",
            expected="a directory for nowcasts",
            fix="another path",
        ) from error
    except OSError as error:
        raise _sink_error(path, 0, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; it is there whole or not at all.

    Raises:
        SinkError: it could not be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise _sink_error(path, len(content), error) from error


def write_whole_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Write a directory by `fill`, which is given an empty one; it is there whole or not at all.

    Raises:
        UsageError: `path` is there already.
        SinkError: it could not be written.
    """
    try:
        with atomic_directory(path) as partial:
            fill(partial)
    except OSError as error:
        raise _sink_error(path, 0, error) from error


def _sink_error(path: Path, size: int, error: OSError) -> SinkError:
    there = next((p for p in (path, *path.parents) if p.is_dir()), Path("/"))
    try:
        free = f"{shutil.disk_usage(there).free:,} bytes free"
    except OSError:
        free = "free space unknown"
    return SinkError(
        f"cannot write {path}: {error.strerror or error} ({free})",
        expected=f"room and rights for {size:,} bytes",
        fix="free some space, or write elsewhere",
    )
