"""Sinks of nowcasts. Read this file before `sinks/`.

A sink is one module under `sinks/`; its word in `SINKS` is what `--sink WORD:REST` takes. What can
be chosen stands between the two: `--sink gif,fps=10:out`, several with a comma each.

A package of yours adds a sink by an entry point of the group `stpl_deploy.sinks`: the name is the
word, the value a function or class `(rest, spec) -> Sink`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol, cast, runtime_checkable

from stpl_core.errors import SinkError, UsageError
from stpl_core.files import atomic_directory, atomic_file, check_writable
from stpl_core.safety.half_written import scratch_directory
from stpl_runtime.links.reconnect import without_credentials
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.plugins import known_words, load_word, nearest

GROUP = "stpl_deploy.sinks"
"""The group of entry points of other packages."""

SINKS: dict[str, str] = {
    "npz": "stpl_runtime.sinks.npz:open_sink",
    "png": "stpl_runtime.sinks.png:open_sink",
    "gif": "stpl_runtime.sinks.gif:open_sink",
    "mp4": "stpl_runtime.sinks.mp4:open_sink",
    "nc": "stpl_runtime.sinks.netcdf:open_sink",
    "zarr": "stpl_runtime.sinks.zarr:open_sink",
    "tif": "stpl_runtime.sinks.geotiff:open_sink",
    "jsonl": "stpl_runtime.sinks.jsonl:open_sink",
    "webhook": "stpl_runtime.sinks.webhook:open_sink",
    "mqtt": "stpl_runtime.sinks.mqtt:open_sink",
}
"""One word -> where its `(rest, spec) -> Sink` lives; `rest` is what follows the colon."""

_EXAMPLES = {
    "jsonl": "nowcasts.jsonl",
    "webhook": "https://HOST/PATH",
    "mqtt": "mqtt://HOST/TOPIC",
}
"""What follows the colon where it is no directory."""


@dataclass(frozen=True)
class SinkSpec:
    """What every sink is given."""

    keep: int | None = None
    """Nowcasts that stay in a directory, the newest ones; None keeps all."""
    keep_s: float | None = None
    """Nowcasts older than this, by issue time against the one written last, go; None: none."""
    options: Mapping[str, str] = field(default_factory=dict)
    """NAME=VALUE of the sink's word; each sink checks which it has (`words.check_options`)."""


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


@runtime_checkable
class KeepsFiles(Protocol):
    """A sink that knows where it puts a nowcast."""

    def files(self, nowcast: Nowcast) -> list[str]:
        """The paths that `write` makes."""
        ...


@runtime_checkable
class DeletesOld(Protocol):
    """A sink whose `write` also deletes what is no longer to be kept."""

    not_deleted: SinkError | None
    """Why the newest `write`, which itself went well, could not do that; None where it could."""


@runtime_checkable
class HasReader(Protocol):
    """A sink that somebody reads, who may go for good while nothing is written."""

    def reader_is_gone(self) -> bool:
        """Whether nobody will ever read what is written from now on."""
        ...


@runtime_checkable
class ReportsFiles(Protocol):
    """A sink that reports where the others put a nowcast."""

    beside: tuple[KeepsFiles, ...]
    """The others; set after opening."""


def open_sinks(texts: Iterable[str], spec: SinkSpec | None = None) -> list[Sink]:
    """Make every sink of a stream; those that report files know those that write them.

    Raises:
        UsageError: see `open_sink`; or two of them write to the same place.
        SinkError: see `open_sink`.
    """
    sinks = [open_sink(text, spec) for text in texts]
    names = [sink.name for sink in sinks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"--sink {name} is there twice", expected="each place once", fix="leave one out"
            )
    for sink in sinks:
        if isinstance(sink, ReportsFiles):
            sink.beside = tuple(other for other in sinks if isinstance(other, KeepsFiles))
    return sinks


def open_sink(text: str, spec: SinkSpec | None = None) -> Sink:
    """Make a sink from `WORD:REST` or `WORD,NAME=VALUE:REST`.

    Raises:
        UsageError: an unknown word or option, or nothing after it.
        SinkError: its directory cannot be made, or not be written to.
    """
    head, _, rest = text.partition(":")
    word, *given = head.split(",")
    words = known_words(SINKS, GROUP)
    if word not in words:
        raise UsageError(
            f"unknown sink {word}",
            expected=f"one of {', '.join(f'{name}:' for name in words)}",
            fix=without_credentials(f"--sink {nearest(word, words, 'npz')}:{rest or 'DIRECTORY'}"),
        )
    if not rest:
        rest = _EXAMPLES.get(word, "nowcasts")
        raise UsageError(
            f"--sink {text} says not where to",
            expected=f"{word}:{'URL' if '://' in rest else 'PATH'}",
            fix=f"--sink {word}:{rest}",
        )
    options = dict(_option(word, one) for one in given)
    spec = replace(spec or SinkSpec(), options=options)
    return cast("Sink", load_word("sink", word, SINKS, GROUP)(rest, spec))


def _option(word: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(
            f"--sink {word},{text} is no option",
            expected=f"{word},NAME=VALUE:REST",
            fix=f"--sink {word},{name or 'NAME'}=VALUE:REST",
        )
    return name, value


def make_directory(path: Path) -> None:
    """Make a sink's directory, and see that it may be written to.

    A full disk is no fault here: what is no longer to be kept makes room.

    Raises:
        UsageError: a file is in the way.
        SinkError: it cannot be made, or there are no rights to write in it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path)  # reported now, not when the first nowcast is due
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{path} cannot be a directory: a file is in the way",
            expected="a directory for nowcasts",
            fix="another path",
        ) from error
    except OSError as error:
        raise sink_error(path, 0, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; it is there whole or not at all.

    Raises:
        SinkError: it could not be written.
    """
    try:
        with atomic_file(path) as file:
            file.write(content)
    except OSError as error:
        raise sink_error(path, len(content), error) from error


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
        raise sink_error(path, 0, error) from error


def write_over_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Like `write_whole_directory`, in the place of an older one.

    The older one steps aside under a hidden name (`sinks.leftovers` mends what a kill leaves) and
    goes once the new one stands: readers meet a whole directory, or for a moment none.

    Raises:
        SinkError: it could not be written; the older one stays.
    """
    newer, older = (path.with_name(f".{path.name}.{end}") for end in ("newer", "older"))
    try:
        shutil.rmtree(newer, ignore_errors=True)
        with atomic_directory(newer) as partial:
            fill(partial)
        shutil.rmtree(older, ignore_errors=True)
        if path.exists():
            path.rename(older)
        newer.rename(path)
        shutil.rmtree(older, ignore_errors=True)
    except OSError as error:
        raise sink_error(path, 0, error) from error


@contextmanager
def temporary_file(name: str) -> Iterator[Path]:
    """A file for a moment, whose content is read at the end: for libraries that want a path.

    Raises:
        OSError: it could not be written: mostly, the temporary directory is full.
    """
    try:
        with scratch_directory("nowcast") as folder:
            yield folder / name
    except (OSError, RuntimeError) as error:  # the latter: NetCDF's way to say it
        reason = getattr(error, "strerror", None) or error
        raise OSError(errno.EIO, f"{reason}, in {gettempdir()}") from error


class ReaderGoneError(BrokenPipeError):
    """Whoever read our standard output has gone for good: there is nobody left to write for."""


def sink_error(path: Path, size: int, error: OSError) -> SinkError:
    """What went wrong at `path`, with the room that is left there.

    Args:
        path: what could not be written.
        size: its bytes; 0 where they are not known.
        error: why.
    """
    # os.path: `Path.is_dir` raises where a folder above may not be looked into
    there = next((p for p in (path, *path.parents) if os.path.isdir(p)), Path("/"))
    try:
        free = f"{shutil.disk_usage(there).free:,} bytes free"
    except OSError:
        free = "free space unknown"
    return SinkError(
        f"cannot write {path}: {error.strerror or error} ({free})",
        expected=(f"room for {size:,} bytes" if size else "room") + ", and leave to write",
        fix=_REMEDIES.get(error.errno or 0, "free some space, or write elsewhere"),
    )


_REMEDIES = {
    errno.EACCES: "give this user the right to write there, or write elsewhere",
    errno.EPERM: "give this user the right to write there, or write elsewhere",
    errno.EROFS: "write elsewhere: nothing can be written there",
    errno.EISDIR: "the name of a file in that folder",
    errno.ENOTDIR: "another path: a file is where a folder should be",
    errno.ENAMETOOLONG: "a shorter name",
    errno.ELOOP: "a path without links that lead to themselves",
    errno.EMFILE: "a higher limit of open files: ulimit -n 4096",
}
"""What helps where it is not room that is lacking."""
