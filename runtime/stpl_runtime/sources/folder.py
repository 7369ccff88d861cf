"""A watched folder, of any files that the readers read; one file holds one frame or many.

A file that decodes is whole and arrives at once (so does an atomic rename). One that does not may
still be growing: it is tried again at each change, and is bad once it has not changed for a while.
A file that is overwritten later arrives again. The kernel's events say when to look, and every two
seconds or so the folder is listed, since events get lost (and network file systems send none).
A folder that goes away while it is watched, such as a mount, is waited for.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import watchfiles

from stpl_core.errors import FrameError, UsageError
from stpl_core.frames import FRAME_SUFFIXES, Frame
from stpl_core.readers.names import check_no_model, is_utf8, utf8_path
from stpl_core.readers.registry import load_reader
from stpl_runtime.ingest.decoding import Decoder, file_suffixes
from stpl_runtime.ingest.unread_files import Unread
from stpl_runtime.links.health import Health
from stpl_runtime.links.reconnect import Backoff
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH, NameClock

OPTIONS = ("recursive", "resize")

_TICK_MS = 100
_GROUP_MS, _STEP_MS = 50, 5
"""Events of so many milliseconds are taken together; a quiet step ends the group."""
_SETTLE_S = 2.0
_RESCAN_S = 2.0

_Signature = tuple[int, int, int]
"""Inode, size, modification time in ns: a change means new bytes."""


def open_source(rest: str, spec: SourceSpec) -> FolderSource:
    """Open the folder `rest`.

    Raises:
        UsageError: it is missing, not a folder or may not be read; or a wrong time format.
    """
    return FolderSource(Path(rest.removeprefix("//")), spec)


def frame_files(
    folder: Path, suffixes: tuple[str, ...] = FRAME_SUFFIXES, *, recursive: bool = False
) -> list[Path]:
    """The files of `folder` that may hold a frame, in no order.

    Args:
        folder: where to look.
        suffixes: the ends of their names.
        recursive: in its subfolders too.

    Raises:
        UsageError: it is missing, not a folder or may not be read.
    """
    return [Path(item.path) for item in _visible(folder, recursive) if _is_read(item, suffixes)]


def _visible(folder: Path, recursive: bool) -> list[os.DirEntry[str]]:
    """What lies in `folder` and is not hidden; see `frame_files`."""
    try:
        return list(_listing(folder, recursive))
    except FileNotFoundError:
        found = f"no folder {folder}"
    except NotADirectoryError:
        found = f"{folder} is a file"
    except OSError as error:
        found = f"{folder} cannot be read: {error.strerror}"
    raise UsageError(
        found,
        expected=f"a folder of frames: {', '.join(FRAME_SUFFIXES)} or another format "
        "of docs/data.md",
        fix="check the path and your rights",
    )


def _listing(
    folder: Path, recursive: bool, above: tuple[str, ...] = ()
) -> Iterator[os.DirEntry[str]]:
    """What lies in `folder`; of its subfolders, those that are linked to from inside are left out.

    A subfolder that goes away meanwhile, or may not be read, is no reason to lose the others.
    """
    with os.scandir(folder) as listing:
        inside = (*above, os.path.realpath(folder)) if recursive else ()
        for item in listing:
            if item.name.startswith("."):
                continue
            if not recursive or not item.is_dir():
                yield item
            elif os.path.realpath(item.path) not in inside:
                with suppress(OSError):
                    yield from _listing(Path(item.path), recursive, inside)


def _is_read(item: os.DirEntry[str] | Path, suffixes: tuple[str, ...]) -> bool:
    return item.name.lower().endswith(suffixes)


class _GoneError(Exception):
    """The folder is not there, or may not be read any more."""


class FolderSource:
    """Keeps `stpl_runtime.source.Source`; the files wait in the folder while the queue is full."""

    waits = True

    def __init__(
        self,
        path: Path,
        spec: SourceSpec,
        *,
        settle_s: float = _SETTLE_S,
        rescan_s: float = _RESCAN_S,
        force_polling: bool | None = None,
    ) -> None:
        """Check the folder; see `open_source`.

        Args:
            path: the folder.
            spec: the frames that are expected, and how their time is found.
            settle_s: a file that cannot be decoded is bad when it was left alone for so long.
            rescan_s: seconds between listings of the folder.
            force_polling: compare listings instead of waiting for events; None asks
                watchfiles, which also reads WATCHFILES_FORCE_POLLING.
        """
        options = Options("folder", spec.options, OPTIONS)
        self._recursive = options.flag("recursive")
        self._decoder = Decoder(spec, options.resize("none"))
        frame_files(path)
        check_no_model(path)
        self.path, self.name = path, f"folder:{path}"
        self.health = Health()
        self.health.up()  # it was listed just now
        self._settle_s, self._rescan_s = settle_s, rescan_s
        self._polls = force_polling
        chosen = load_reader(spec.reader).SUFFIXES if spec.reader else ()
        self._suffixes = chosen or file_suffixes()
        self.unread_files = Unread(self._suffixes)
        self._order_clock = NameClock(spec.time_format, spec.cadence_s, mtime=spec.mtime)
        self._known: set[int] = set()  # hashes of (name, signature): seen, and done with
        self._unripe: dict[Path, tuple[_Signature, float]] = {}  # undecodable since when

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what is there in the order of time, then what comes; see the protocol."""
        backoff = Backoff()
        while not stop.is_set():
            gone = yield from self._while_there(stop, backoff)
            if gone is not None:
                self.health.down(str(gone))
                backoff.wait(stop)

    def _while_there(
        self, stop: threading.Event, backoff: Backoff
    ) -> Generator[Arrival, None, _GoneError | None]:
        """List and watch; returns why that ended where the folder is gone."""
        try:
            new = self._listed()
            self.health.up()
            backoff.reset()
            yield from self._look_at(new)
            yield from self._watch(stop)
        except _GoneError as error:
            return error
        return None

    def _changed(self, stop: threading.Event) -> Iterator[set[str]]:
        """The names of what was touched, again and again.

        A folder whose name is no UTF-8 is watched by a link, and these are no names in it.
        """
        with utf8_path(self.path) as watched:
            for changes in watchfiles.watch(
                watched,
                watch_filter=None,
                debounce=_GROUP_MS,
                step=_STEP_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                force_polling=self._polls,
                poll_delay_ms=_TICK_MS,
                recursive=self._recursive,
            ):
                yield {name for change, name in changes if change.name != "deleted"}

    def _watch(self, stop: threading.Event) -> Iterator[Arrival]:
        """Watch until `stop`, or until another folder stands in this one's place."""
        inode = self._inode()
        next_scan = 0.0  # at once: something may have come between listing and watching
        try:
            for names in self._changed(stop):
                if self._inode() != inode:
                    return
                touched = map(Path, names)
                yield from self._look_at(p for p in touched if self._may_be_frame(p))
                yield from self._look_at(list(self._unripe))
                if time.monotonic() >= next_scan or (names and not is_utf8(self.path)):
                    began = time.monotonic()
                    yield from self._look_at(self._listed())
                    took = time.monotonic() - began
                    next_scan = time.monotonic() + max(self._rescan_s, 20.0 * took)
        except (OSError, RuntimeError) as error:  # no watch to be had: its limit, or no folder
            self._inode()  # raises where the folder is gone
            if self._polls:
                raise _GoneError(f"{self.path} cannot be watched: {error}") from error
            self._polls = True

    def _inode(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError as error:
            raise _GoneError(f"{self.path} went away: {error.strerror}") from error

    def _may_be_frame(self, path: Path) -> bool:
        """Whether a file that an event names would be listed too."""
        inner = path.relative_to(self.path).parts[:-1] if path.is_relative_to(self.path) else ()
        hidden = any(part.startswith(".") for part in inner)
        return not hidden and not path.name.startswith(".") and _is_read(path, self._suffixes)

    def _listed(self) -> list[Path]:
        """What is new in the folder; forgets files that are no longer there."""
        try:
            items = _visible(self.path, self._recursive)
        except UsageError as error:
            raise _GoneError(error.found) from error
        files = [Path(item.path) for item in items if _is_read(item, self._suffixes)]
        others = [item for item in items if not _is_read(item, self._suffixes)]
        if files:  # subfolders beside frames belong there: a sink's, for one
            others = [item for item in others if not item.is_dir()]
        self.unread_files.listed((item.path, item.is_dir()) for item in others)
        current: set[int] = set()
        new = []
        for path in files:
            signature = _signature(path)
            if signature is None:
                continue
            key = hash((path.name, signature))
            current.add(key)
            if key not in self._known:
                new.append(path)
        self._known &= current
        return new

    def _look_at(self, paths: Iterable[Path]) -> Iterator[Arrival]:
        """Yield an arrival for each path that is new and whole, or given up; by time, then name."""
        for path in sorted(paths, key=self._order):
            signature = _signature(path)
            if signature is None:
                self._unripe.pop(path, None)
            elif hash((path.name, signature)) not in self._known:
                items = self._decode(path, signature)
                if items:
                    self._known.add(hash((path.name, signature)))
                    self._unripe.pop(path, None)
                    yield from map(Arrival.now, items)

    def _order(self, path: Path) -> tuple[datetime, str]:
        try:
            return self._order_clock.time(path), path.name
        except (UsageError, OSError):  # reported when it is decoded, where its content has no time
            return EPOCH, path.name

    def _decode(self, path: Path, signature: _Signature) -> list[Frame] | list[BadFrame]:
        """The frames in `path`; none where it may not be whole yet."""
        since = self._unripe.get(path)
        left_alone = since is not None and since[0] == signature
        if left_alone and since is not None and time.monotonic() - since[1] < self._settle_s:
            return []
        try:
            stored = self._decoder.stored(path)
        except FrameError as error:
            if left_alone:
                return [BadFrame(path.name, str(error))]
            self._unripe[path] = (signature, time.monotonic())
            return []
        if _signature(path) != signature:
            return []  # changed under our eyes; the event for that is on its way
        try:
            return self._decoder.fitted(stored, path)
        except FrameError as error:
            return [BadFrame(path.name, str(error))]
        except OSError:
            return []  # gone before its modification time was read


def _signature(path: Path) -> _Signature | None:
    """None where there is no regular file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
