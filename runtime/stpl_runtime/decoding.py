"""From a file or a message's bytes to frames, for every source alike."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path, PurePosixPath

from stpl_deploy.errors import FrameError
from stpl_deploy.frames import Frame, as_frame, physical_values, read_array
from stpl_runtime.source import SourceSpec
from stpl_runtime.timing import NameClock


class Decoder:
    """Decodes what one source brings, as its `SourceSpec` says."""

    def __init__(self, spec: SourceSpec) -> None:
        """Prepare.

        Raises:
            UsageError: a wrong time format.
        """
        self._spec = spec
        self.clock = NameClock(spec.time_format, spec.cadence_s, mtime=spec.mtime)

    def from_file(self, path: Path, time: datetime | None = None) -> list[Frame]:
        """The frames of a file, oldest first.

        Args:
            path: a whole file.
            time: when its frame was observed, where neither its content nor its name tells.

        Raises:
            FrameError: it cannot be decoded or used; names the file.
            MissingExtraError: its reader's library is not installed.
            UsageError: its name ends in an index and no cadence is known.
        """
        values = physical_values(
            as_frame(read_array(path), self._spec.shape, path.name), self._spec.codec, path.name
        )
        return [Frame(self._time(path, time), values, source_id=path.name)]

    def from_bytes(self, content: bytes, name: str, time: datetime | None = None) -> list[Frame]:
        """The frames of a message or a download; see `from_file`.

        Args:
            content: what a file of this kind holds.
            name: its name, topic or URL path; the end says what it is, the rest maybe the time.
            time: as in `from_file`.
        """
        with tempfile.TemporaryDirectory(prefix="stpl-frame-") as folder:
            path = Path(folder) / (PurePosixPath(name).name or "frame")
            path.write_bytes(content)
            return self.from_file(path, time)

    def _time(self, path: Path, time: datetime | None) -> datetime:
        try:
            return self.clock.time(path)
        except FrameError:
            if time is None:
                raise
            return time
