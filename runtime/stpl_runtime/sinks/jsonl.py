"""Nowcasts as JSON lines: one line of `sinks.summary` for each, in a file or on stdout."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import stat
import sys
from datetime import datetime
from pathlib import Path

from stpl_core.errors import SinkError, UsageError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.plugins import check_options
from stpl_runtime.sink import (
    KeepsFiles,
    ReaderGoneError,
    SinkSpec,
    make_directory,
    sink_error,
)
from stpl_runtime.sinks.summary import summary_line
from stpl_runtime.timing import time_from_text

_TAIL = 1 << 20
"""A line is shorter than this."""


def open_sink(rest: str, spec: SinkSpec | None = None) -> JsonLines | StdoutLines | DeviceLines:
    """`jsonl:FILE`, or `jsonl:-` for stdout.

    Raises:
        UsageError: it is a folder.
        SinkError: it cannot be written.
    """
    spec = spec or SinkSpec()
    check_options("the sink jsonl", spec.options, ())
    if is_stdout(rest):
        return StdoutLines()
    path = Path(rest)
    if os.path.isdir(path) or rest.endswith("/"):  # `Path.is_dir` raises without rights
        raise UsageError(
            f"--sink jsonl:{rest} is a folder",
            expected="a file, to which a line is added for each nowcast",
            fix=f"--sink jsonl:{path / 'nowcasts.jsonl'}",
        )
    return DeviceLines(path) if _is_device(path) else JsonLines(path, spec)


def is_stdout(rest: str) -> bool:
    """Whether `rest` of `jsonl:REST` is this process's standard output."""
    return rest in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def _is_device(path: Path) -> bool:
    """A FIFO, a terminal, `/dev/null`: what has no end to append at."""
    try:
        kind = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(kind) and not stat.S_ISDIR(kind)


class StdoutLines:
    """Keeps `stpl_runtime.sink.Sink`."""

    name = "jsonl:-"

    def __init__(self) -> None:
        """Nothing is opened: stdout is."""
        self.beside: tuple[KeepsFiles, ...] = ()

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`."""
        try:
            sys.stdout.write(summary_line(nowcast, self.beside).decode())
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGoneError(*error.args) from error
        except OSError as error:
            raise sink_error(Path("/dev/stdout"), 0, error) from error

    def reader_is_gone(self) -> bool:
        """Whether the other end of the pipe was closed, as by `head -1`."""
        if not hasattr(select, "poll"):
            return False  # Windows: the next line finds out
        try:
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)  # errors are always reported
            return any(event & select.POLLERR for _, event in poll.poll(0))
        except (OSError, ValueError):  # no file, or a closed one
            return False

    def close(self) -> None:
        """Stdout stays open."""


class DeviceLines:
    """Writes lines to a FIFO or a device; keeps `stpl_runtime.sink.Sink`.

    A FIFO that nobody reads refuses a line, which is reported; a reader may come again.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet: of a FIFO a reader may still come."""
        self._handle: int | None = None
        self.path, self.name = path, f"jsonl:{path}"
        self.beside: tuple[KeepsFiles, ...] = ()

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`."""
        rest = memoryview(summary_line(nowcast, self.beside))
        try:
            if self._handle is None:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                os.set_blocking(self._handle, True)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self.close()
            if error.errno in (errno.ENXIO, errno.EPIPE):
                raise SinkError(
                    f"{self.path}: nobody reads it",
                    expected="a reader",
                    fix=f"cat {self.path}",
                ) from error
            raise sink_error(self.path, len(rest), error) from error

    def close(self) -> None:
        """Close it; the next line opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class JsonLines:
    """Appends whole lines to a file; keeps `stpl_runtime.sink.Sink`.

    What is to be kept (`SinkSpec`) is always there, in FILE and FILE.1: a FILE that holds so many
    lines, or lines so old, becomes FILE.1 in the place of the one before.
    """

    def __init__(self, path: Path, spec: SinkSpec) -> None:
        """Open the file, and cut off half a line that a killed process may have left.

        Raises:
            UsageError: a file is in the way of its directory.
            SinkError: it cannot be opened.
        """
        self.path, self.name = path, f"jsonl:{path}"
        self.beside: tuple[KeepsFiles, ...] = ()
        self.not_deleted: SinkError | None = None
        self._spec = spec
        try:
            if not path.exists():  # else its own rights count
                make_directory(path.parent)
            self._lines, self._oldest = self._mend()
        except OSError as error:
            raise sink_error(path, 0, error) from error

    def files(self, nowcast: Nowcast) -> list[str]:
        """The one file."""
        return [str(self.path)]

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`."""
        line = summary_line(nowcast, tuple(other for other in self.beside if other is not self))
        self._turn_over(nowcast.issue_time)
        try:
            _append(self.path, line)
        except OSError as error:
            raise sink_error(self.path, len(line), error) from error
        self._lines += 1
        self._oldest = _earlier(self._oldest, nowcast.issue_time)

    def close(self) -> None:
        """Nothing is open."""

    def _turn_over(self, coming: datetime | None) -> None:
        """Begin anew where it is full; where that cannot be, the file goes on."""
        self.not_deleted = None
        if not self._is_full(coming):
            return
        before = self.path.with_name(f"{self.path.name}.1")
        try:
            self.path.replace(before)
        except OSError as error:
            self.not_deleted = SinkError(
                f"{self.path} cannot become {before.name}: {error.strerror or error}",
                expected="rights to replace it",
                fix=f"remove {before}, or write elsewhere",
            )
        else:
            self._lines, self._oldest = 0, None

    def _is_full(self, coming: datetime | None) -> bool:
        keep, keep_s = self._spec.keep, self._spec.keep_s
        if not self.path.exists():
            self._lines, self._oldest = 0, None
        if keep is not None and self._lines >= keep:
            return True
        if keep_s is None or coming is None or self._oldest is None:
            return False
        return (coming - self._oldest).total_seconds() > keep_s

    def _mend(self) -> tuple[int, datetime | None]:
        """Cut off what follows the last newline -> lines, and issue time of the first."""
        if not self.path.exists():
            return 0, None
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
            file.seek(0)
            first = file.readline()
            return sum(1 for _ in file) + bool(first), _issue_time(first)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier one: where a clock was set back, the age of a file counts from there."""
    return min((time for time in (one, other) if time is not None), default=None)


def _issue_time(line: bytes) -> datetime | None:
    """Of a line; None where it has none, or is somebody else's."""
    try:
        return time_from_text(json.loads(line)["issue_time"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _append(path: Path, line: bytes) -> None:
    """All of the line, or nothing."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(handle).st_size
        try:
            rest = memoryview(line)
            while rest:  # the write after a short one says why there is no room
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)
