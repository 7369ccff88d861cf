"""Standard input: `ffmpeg ... | stpl-deploy stream BUNDLE -`, or .npy files one after the other.

Of videos, whatever FFmpeg knows from a pipe (nut, mpegts, matroska, PNG or JPEG pictures). The
first frame is of the time `start`, else of now; the others follow by the times in the stream.
Pictures and arrays have none: they are one cadence apart, or of the time they arrive.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from stpl_core.errors import FrameError, SourceLostError, UsageError
from stpl_core.frames import Frame, as_frame, physical_values
from stpl_core.readers.film import FilmClock
from stpl_runtime.ingest.pictures import Pictures, decoded, video_stream
from stpl_runtime.ingest.sampling import Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec

OPTIONS = ("start", "format", "resize")
_NPY = b"\x93NUMPY"
_CLOCKLESS = ("mjpeg", "h264", "hevc", "rawvideo", "image2pipe")
"""FFmpeg's names of streams without times, beside those that end in `_pipe`."""
_LOOK_S = 0.2
"""How often `stop` is looked at while nothing comes."""


def open_source(rest: str, spec: SourceSpec) -> StdinSource:
    """Open standard input.

    Raises:
        UsageError: it is a terminal, or an option that does not hold.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal",
            expected="frames from a pipe",
            fix="ffmpeg -i FILE -f nut - | stpl-deploy stream BUNDLE -",
        )
    return StdinSource(sys.stdin.fileno(), spec)


_FFMPEG = {"analyzeduration": "1000000", "protocol_whitelist": "pipe"}
"""A playlist that comes through the pipe opens nothing."""


class StdinSource:
    """Keeps `stpl_runtime.source.Source`; what is not read yet waits in the pipe."""

    waits = True
    name = "standard input"

    def __init__(self, descriptor: int, spec: SourceSpec) -> None:
        """Read the options.

        Args:
            descriptor: of the open file that is read.
            spec: the frames that are expected.
        """
        self.health = Health()
        options = Options(self.name, spec.options, OPTIONS)
        self._descriptor, self._spec = descriptor, spec
        self._resize, self._format = options.resize("area"), options.text("format")
        self._start = options.time("start")

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames until the pipe's other end is closed; see the protocol."""
        pipe = _Pipe(self._descriptor, stop)
        head = pipe.peek(len(_NPY))
        if not head:
            if stop.is_set():
                return
            raise SourceLostError(
                "standard input ended before the first byte",
                expected="frames",
                fix="look at what the command before the pipe says",
            )
        self.health.up()
        yield from self._arrays(pipe) if head == _NPY else self._video(pipe)
        self.health.ended()

    def _arrays(self, pipe: _Pipe) -> Iterator[Arrival]:
        count = 0
        while pipe.peek(1):
            name = f"{self.name} ({count + 1})"
            try:
                array = np.lib.format.read_array(pipe, allow_pickle=False)  # type: ignore[arg-type]
            except (ValueError, EOFError, OSError, MemoryError) as error:
                if not pipe.stopped:
                    yield Arrival.now(BadFrame(name, f"is no .npy: {error}"))
                return  # where the next one begins is not known
            try:
                array = as_frame(array, self._spec.shape, name)
                values = physical_values(array, self._spec.codec, name)
                yield Arrival.now(Frame(self._counted(count), values, source_id=self.name))
            except FrameError as error:
                yield Arrival.now(BadFrame(name, str(error)))
            count += 1

    def _video(self, pipe: _Pipe) -> Iterator[Arrival]:
        pictures = Pictures(self._spec, self._resize, self.name)
        import av

        try:
            container = av.open(
                pipe,
                format=self._format or None,
                options={"analyzeduration": "1000000", "protocol_whitelist": "pipe"},
            )
        except av.error.FFmpegError as error:
            if pipe.stopped:
                return
            raise FrameError(
                f"{self.name} holds nothing that is known ({error.strerror})",
                expected=".npy arrays, or a stream that FFmpeg knows",
                fix="ffmpeg -i FILE -f nut - | stpl-deploy stream BUNDLE -",
            ) from error
        with container:
            yield from self._film(container, pictures)

    def _film(self, container: Any, pictures: Pictures) -> Iterator[Arrival]:
        import av

        stream = video_stream(container, self.name, "SLICE")
        kind = container.format.name
        timeless = kind.endswith("_pipe") or kind in _CLOCKLESS
        clock = FilmClock(stream)
        sampler: Sampler[Any] = Sampler(None if timeless else self._spec.cadence_s)
        count, damaged = 0, list[str]()
        try:
            for found in decoded(container, stream, damaged):
                while damaged:
                    yield Arrival.now(BadFrame(self.name, damaged.pop(0)))
                for picture in found:
                    at = self._counted(count) if timeless else self._timed(clock, picture)
                    count += 1
                    for when, taken in sampler.offer(at, picture):
                        yield Arrival.now(pictures.frame(taken, when))
        except av.error.FFmpegError as error:
            yield Arrival.now(BadFrame(self.name, f"it ends early: {error.strerror}"))
        for when, taken in sampler.rest():
            yield Arrival.now(pictures.frame(taken, when))

    def _timed(self, clock: FilmClock, picture: Any) -> datetime:
        """The time of a picture, by the stream."""
        self._start = self._start or datetime.now(timezone.utc)
        return self._start + timedelta(seconds=clock.seconds(picture))

    def _counted(self, count: int) -> datetime:
        """The time of frame `count` where the stream carries none."""
        if self._spec.cadence_s is None:
            return datetime.now(timezone.utc)
        self._start = self._start or datetime.now(timezone.utc)
        return self._start + timedelta(seconds=count * self._spec.cadence_s)


class _Pipe:
    """Reads what is there, without waiting for more, and ends when `stop` is set."""

    def __init__(self, descriptor: int, stop: threading.Event) -> None:
        self._descriptor, self._stop = descriptor, stop
        self._held = b""

    @property
    def stopped(self) -> bool:
        """Whether it was stopped from outside."""
        return self._stop.is_set()

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, which stay; fewer at the end."""
        while len(self._held) < count:
            more = self._more(count)
            if not more:
                break
            self._held += more
        return self._held[:count]

    def read(self, count: int) -> bytes:
        """At least one byte and at most `count`; none at the end."""
        if self._held:
            taken, self._held = self._held[:count], self._held[count:]
            return taken
        return self._more(count)

    def _more(self, count: int) -> bytes:
        while not self._stop.is_set():
            if select.select([self._descriptor], [], [], _LOOK_S)[0]:
                return os.read(self._descriptor, count)
        return b""
