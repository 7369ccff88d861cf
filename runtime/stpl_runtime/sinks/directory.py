"""Sinks that write one file for each nowcast: the naming, what is kept, and nothing half-written.

`WORD:DIR` keeps each as `DIR/nowcast_<issue time>.SUFFIX`; `WORD:FILE.SUFFIX` the newest alone.
Of several streams, each has its own directory, `DIR/<stream>`, or file, `FILE_<stream>.SUFFIX`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from stpl_core.errors import SinkError, StplError
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.plugins import check_options
from stpl_runtime.sink import SinkSpec, make_directory, sink_error
from stpl_runtime.sinks.file_format import FileFormat
from stpl_runtime.sinks.leftovers import remove, sweep
from stpl_runtime.sinks.retention import outdated

_TIME = r"nowcast_(\d{8}T\d{6})(\.\d{6})?Z"


class DirectorySink:
    """Keeps `stpl_runtime.sink.Sink`; one for every word that makes files."""

    def __init__(
        self,
        word: str,
        file_format: FileFormat,
        rest: str,
        spec: SinkSpec | None,
        *,
        write: Callable[[Path, Nowcast], None] | None = None,
        options: Iterable[str] = (),
    ) -> None:
        """Make the directory, and mend what a killed process left there.

        Args:
            word: the sink's.
            file_format: of its files.
            rest: DIR, or FILE where it ends in one of the format's suffixes.
            spec: what is kept.
            write: writes a nowcast whole or not at all, over an older one; None: the format's.
            options: names that the word knows.

        Raises:
            MissingExtraError: a library of the format is not installed.
            UsageError: a file is in the way, or an option that the word does not have.
            SinkError: the directory cannot be made, or not be written to.
        """
        self._spec = spec or SinkSpec()
        check_options(f"the sink {word}", self._spec.options, options)
        file_format.check_installed()
        path, self._suffix = Path(rest), file_format.suffixes[0]
        is_file = path.suffix.lower() in file_format.suffixes
        is_file = is_file and (file_format.fill is not None or not path.is_dir())
        self._file = path if is_file else None
        self._write_whole = write or file_format.write
        self.not_deleted: SinkError | None = None
        self.path, self.name = path, f"{word}:{path}"
        folder = path.parent if is_file else path
        make_directory(folder)
        self._ours = re.compile(_TIME + re.escape(self._suffix))
        if is_file:
            sweep(folder, re.escape(path.stem) + "(?:_.*)?" + re.escape(path.suffix))
            return
        streams = (below for below in folder.iterdir() if not self._ours.fullmatch(below.name))
        for each in (folder, *streams):
            sweep(each, self._ours.pattern.replace("(", "(?:"))

    def files(self, nowcast: Nowcast) -> list[str]:
        """Where `write` puts it."""
        return [str(self._path(nowcast))]

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`; what is no longer to be kept goes afterwards.

        Where there is no room, it goes before, and the nowcast is tried once more.
        """
        path = self._path(nowcast)
        try:
            self._write(path, nowcast)
        except SinkError:
            if not self._prune(path.parent, nowcast.issue_time):
                raise
            self._write(path, nowcast)
        self._prune(path.parent, nowcast.issue_time)

    def close(self) -> None:
        """Nothing is open."""

    def _path(self, nowcast: Nowcast) -> Path:
        stream = quote(nowcast.stream, safe=" ").replace(".", "%2E")  # a name, never a path
        if self._file is None:
            return self.path / stream / f"{nowcast.name}{self._suffix}"
        return self._file.with_stem(f"{self._file.stem}_{stream}") if stream else self._file

    def _write(self, path: Path, nowcast: Nowcast) -> None:
        try:
            self._write_whole(path, nowcast)
        except StplError:
            raise
        except (OSError, RuntimeError, MemoryError) as error:  # of the libraries that make files
            reason = str(error) or type(error).__name__
            raise sink_error(path, 0, OSError(errno.EIO, reason)) from error

    def _prune(self, folder: Path, newest: datetime | None) -> int:
        """Delete what is not to be kept beside the nowcast of `newest` -> how many were."""
        self.not_deleted = None
        spec = self._spec
        if self._file is not None or newest is None or (spec.keep, spec.keep_s) == (None, None):
            return 0
        deleted = 0
        try:
            found = {path: time for path in folder.iterdir() if (time := self._time(path))}
            going = outdated(found.values(), newest, spec)
            for path in sorted(path for path, time in found.items() if time in going):
                deleted += self._removed(path)
        except OSError as error:  # the folder may not be listed, or is not there yet
            self.not_deleted = sink_error(folder, 0, error)
        return deleted

    def _removed(self, path: Path) -> bool:
        try:
            remove(path)
        except SinkError as error:
            self.not_deleted = self.not_deleted or error
            return False
        return True

    def _time(self, path: Path) -> datetime | None:
        """The issue time in a name that is ours; None for every other."""
        match = self._ours.fullmatch(path.name)
        if match is None:
            return None
        try:
            found = datetime.strptime(match[1] + (match[2] or ".0"), "%Y%m%dT%H%M%S.%f")
        except ValueError:  # 99 o'clock: somebody else's
            return None
        return found.replace(tzinfo=timezone.utc)
