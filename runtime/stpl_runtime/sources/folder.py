"""A watched folder: one .npy or .png file is one frame.

A file that decodes is whole and arrives at once (so does an atomic rename). One that does not may
still be growing: it is tried again at each change, and is bad once it has not changed for a while.
A file that is overwritten later arrives again. The kernel's events say when to look, and every two
seconds or so the folder is listed, since events get lost (and network file systems send none).
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import watchfiles

from stpl_deploy.errors import FrameError, SourceLostError, UsageError
from stpl_deploy.frames import FRAME_SUFFIXES, Frame, as_frame, physical_values, read_array
from stpl_runtime.health import Health
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH, NameClock

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


def frame_files(folder: Path) -> list[Path]:
    """The files of `folder` that may hold a frame, in no order.

    Raises:
        UsageError: it is missing, not a folder or may not be read.
    """
    try:
        with os.scandir(folder) as listing:
            return [folder / item.name for item in listing if _is_frame_name(item.name)]
    except FileNotFoundError:
        found = f"no folder {folder}"
    except NotADirectoryError:
        found = f"{folder} is a file"
    except OSError as error:
        found = f"{folder} cannot be read: {error.strerror}"
    raise UsageError(
        found,
        expected=f"a folder of {' or '.join(FRAME_SUFFIXES)} frames",
        fix="check the path and your rights",
    )


def _is_frame_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(FRAME_SUFFIXES)


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
        frame_files(path)
        self.path, self.name = path, f"folder:{path}"
        self.health = Health()
        self._spec, self._settle_s, self._rescan_s = spec, settle_s, rescan_s
        self._polls = force_polling
        self._clock = NameClock(spec.time_format, spec.cadence_s, mtime=spec.mtime)
        self._known: set[int] = set()  # hashes of (name, signature): seen, and done with
        self._unripe: dict[Path, tuple[_Signature, float]] = {}  # undecodable since when

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield what is there in the order of time, then what comes; see the protocol."""
        self.health.up()
        yield from self._look_at(self._listed())
        while not stop.is_set():
            yield from self._watch(stop)

    def _watch(self, stop: threading.Event) -> Iterator[Arrival]:
        """Watch until `stop`, or until another folder stands in this one's place."""
        inode = self._inode()
        next_scan = 0.0  # at once: something may have come between listing and watching
        try:
            for changes in watchfiles.watch(
                self.path,
                watch_filter=None,
                debounce=_GROUP_MS,
                step=_STEP_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                force_polling=self._polls,
                poll_delay_ms=_TICK_MS,
                recursive=False,
            ):
                if self._inode() != inode:
                    return
                touched = {Path(name) for change, name in changes if change.name != "deleted"}
                yield from self._look_at(p for p in touched if _is_frame_name(p.name))
                yield from self._look_at(list(self._unripe))
                if time.monotonic() >= next_scan:
                    began = time.monotonic()
                    yield from self._look_at(self._listed())
                    took = time.monotonic() - began
                    next_scan = time.monotonic() + max(self._rescan_s, 20.0 * took)
        except (OSError, RuntimeError) as error:  # no watch to be had: its limit, or no folder
            self._inode()  # says so where the folder is gone
            if self._polls:
                raise SourceLostError(f"{self.path} cannot be watched: {error}") from error
            self._polls = True

    def _inode(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError as error:
            raise SourceLostError(
                f"{self.path} went away: {error.strerror}",
                expected="the folder that is watched",
                fix="make it again and restart",
            ) from error

    def _listed(self) -> list[Path]:
        """What is new in the folder; forgets files that are no longer there."""
        try:
            files = frame_files(self.path)
        except UsageError as error:
            raise SourceLostError(f"{self.path} went away: {error.found}") from error
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
                item = self._decode(path, signature)
                if item is not None:
                    self._known.add(hash((path.name, signature)))
                    self._unripe.pop(path, None)
                    yield Arrival.now(item)

    def _order(self, path: Path) -> tuple[datetime, str]:
        try:
            return self._clock.time(path), path.name
        except (FrameError, OSError):
            return EPOCH, path.name

    def _decode(self, path: Path, signature: _Signature) -> Frame | BadFrame | None:
        """The frame in `path`; None where it may not be whole yet."""
        since = self._unripe.get(path)
        left_alone = since is not None and since[0] == signature
        if left_alone and since is not None and time.monotonic() - since[1] < self._settle_s:
            return None
        try:
            array = read_array(path)
        except Exception as error:  # a decoder's own errors on broken bytes are of many kinds
            if left_alone:
                return BadFrame(path.name, _first_line(error))
            self._unripe[path] = (signature, time.monotonic())
            return None
        if _signature(path) != signature:
            return None  # changed under our eyes; the event for that is on its way
        try:
            values = physical_values(
                as_frame(array, self._spec.shape, path.name), self._spec.codec, path.name
            )
            return Frame(self._clock.time(path), values, source_id=path.name)
        except FrameError as error:
            return BadFrame(path.name, str(error))
        except OSError:
            return None  # gone before its modification time was read


def _signature(path: Path) -> _Signature | None:
    """None where there is no regular file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
