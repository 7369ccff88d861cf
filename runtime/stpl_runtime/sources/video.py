"""A video file: every frame, or those at the model's cadence; the end of the file ends it.

The times are the file's own: the option `start`, else when the file says that it was made, else the
date in its name, else 1970; plus the time of each frame in the film.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stpl_core.errors import FrameError, UsageError
from stpl_core.readers.completeness import refuse_cut_video
from stpl_core.readers.film import FilmClock
from stpl_core.readers.libraries import decoding, refuse_empty
from stpl_core.readers.video import open_video
from stpl_runtime.ingest.pictures import Pictures, decoded, video_stream
from stpl_runtime.ingest.sampling import Pacer, Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec
from stpl_runtime.timing import EPOCH, NameClock, time_from_text

OPTIONS = ("start", "speed", "resize")


def open_source(rest: str, spec: SourceSpec) -> VideoSource:
    """Open the file `rest`.

    Raises:
        UsageError: it is missing, or no video; or an option that does not hold.
    """
    return VideoSource(Path(rest.removeprefix("//")).expanduser(), spec)


class VideoSource:
    """Keeps `stpl_runtime.source.Source`; frames wait in the file."""

    waits = True
    replays = True

    def __init__(self, path: Path, spec: SourceSpec) -> None:
        """Open and close the file once: a wrong one is reported at once; see `open_source`."""
        self.path, self.name, self.health = path, f"video:{path}", Health()
        options = Options("video", spec.options, OPTIONS)
        self._pictures = Pictures(spec, options.resize("area"), path.name)
        self._cadence_s, self._speed = spec.cadence_s, options.number("speed", 0.0)
        if not path.is_file():
            raise FrameError(f"no file {path}", expected="a video", fix="check the path")
        refuse_empty(path)
        with decoding(path, "video"):
            refuse_cut_video(path)
            with open_video(path) as container:
                video_stream(container, str(path))
                self._start = options.time("start") or self._made(container, spec)

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield the frames; see the protocol."""
        import av

        sampler: Sampler[Any] = Sampler(self._cadence_s)
        pacer, damaged = Pacer(self._speed), list[str]()
        self.health.up()
        with open_video(self.path) as container:
            stream = video_stream(container, self.name)
            clock = FilmClock(stream)
            try:
                for pictures in decoded(container, stream, damaged):
                    yield from _damaged_frames(damaged, self.path.name)
                    for picture in pictures:
                        if stop.is_set():
                            return
                        at = self._start + timedelta(seconds=clock.seconds(picture))
                        yield from self._paced(sampler.offer(at, picture), pacer, stop)
            except av.error.FFmpegError as error:
                damaged.append(f"it ends early: {error}")
            yield from self._paced(sampler.rest(), pacer, stop)
        yield from _damaged_frames(damaged, self.path.name)
        self.health.ended()

    def _paced(
        self, taken: list[tuple[datetime, Any]], pacer: Pacer, stop: threading.Event
    ) -> Iterator[Arrival]:
        for at, picture in taken:
            pacer.wait(at, stop)
            yield Arrival.now(self._pictures.frame(picture, at))

    def _made(self, container: Any, spec: SourceSpec) -> datetime:
        try:
            return time_from_text(container.metadata.get("creation_time", ""))
        except ValueError:
            clock = NameClock(spec.time_format, mtime=spec.mtime)
        try:
            return clock.time(self.path, EPOCH)
        except UsageError:
            return EPOCH


def _damaged_frames(damaged: list[str], name: str) -> Iterator[Arrival]:
    while damaged:
        yield Arrival.now(BadFrame(name, damaged.pop(0)))
