"""Standard input: `ffmpeg ... | stpl-deploy stream BUNDLE -`, or .npy files one after the other.

Of videos, whatever FFmpeg knows from a pipe (nut, mpegts, matroska, PNG or JPEG pictures), and raw
video with `size=640x480`. The first frame is of the time `start`, else of now; the others follow by
the times in the stream. Pictures, arrays and raw video have none: they are one cadence apart, or of
the time they arrive; raw video with `rate=N` is N pictures a second.
"""

from __future__ import annotations

import os
import re
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
from stpl_core.readers.libraries import reads_with
from stpl_core.safety.budget import check_pixels
from stpl_runtime.ingest.pictures import Pictures, decoded, form_of, video_stream
from stpl_runtime.ingest.sampling import Sampler
from stpl_runtime.links.health import Health
from stpl_runtime.options import Options
from stpl_runtime.source import Arrival, BadFrame, SourceSpec

OPTIONS = ("start", "format", "size", "pixel_format", "rate", "resize")
_NPY = b"\x93NUMPY"
_CLOCKLESS = ("mjpeg", "h264", "hevc", "rawvideo", "image2pipe")
"""FFmpeg's names of streams without times, beside those that end in `_pipe`."""
_RAW = "rawvideo"
"""FFmpeg's name of pictures one after the other, with nothing between them."""
_PIXELS = {1: "gray", 3: "rgb24"}
"""Channels of the model -> how raw pixels lie there, where the user does not say it."""
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
        self.replays = self._start is not None  # else they are of now
        self._ffmpeg = {"analyzeduration": "1000000", "protocol_whitelist": "pipe"}
        """A playlist that comes through the pipe opens nothing."""
        raw = _raw_options(options, self._format, spec.shape[0])
        self._ffmpeg.update(raw)
        self._format = _RAW if raw else self._format
        self._has_clock = "framerate" in raw

    def arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        """Yield frames until the pipe's other end is closed; see the protocol."""
        pipe = _Pipe(self._descriptor, stop)
        head = pipe.peek(1 if self._format == _RAW else len(_NPY))
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
                options=self._ffmpeg,
            )
        except av.error.FFmpegError as error:
            if pipe.stopped:
                return
            raise FrameError(
                f"{self.name} holds nothing that is known ({error.strerror})",
                expected=".npy arrays, or a stream that FFmpeg knows",
                fix="ffmpeg -i FILE -f nut - | stpl-deploy stream BUNDLE -; of raw video, "
                "--source-option size=WIDTHxHEIGHT",
            ) from error
        with container:
            yield from self._film(container, pictures)

    def _film(self, container: Any, pictures: Pictures) -> Iterator[Arrival]:
        import av

        stream = video_stream(container, self.name, "SLICE")
        pictures.form = form_of(container, stream)
        kind = container.format.name
        timeless = (kind.endswith("_pipe") or kind in _CLOCKLESS) and not self._has_clock
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


def _raw_options(options: Options, container: str, channels: int) -> dict[str, str]:
    """FFmpeg's options of raw video; empty where it is none.

    Raises:
        UsageError: one that does not hold, or without a size.
    """
    size, pixels = options.text("size"), options.text("pixel_format")
    given = bool(size or pixels or options.text("rate") or container == _RAW)
    if not given:
        return {}
    if container not in ("", _RAW):
        raise UsageError(
            f"size, pixel_format or rate beside format={container}",
            expected="them for raw video alone",
            fix=f"leave them out, or --source-option format={_RAW}",
        )
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", size)
    if found is None:
        raise UsageError(
            f"raw video of the size {size}" if size else "raw video without a size",
            expected="WIDTHxHEIGHT in pixels",
            fix="--source-option size=640x480",
        )
    check_pixels("a picture on standard input", int(found[1]), int(found[2]), channels)
    raw = {"video_size": size, "pixel_format": pixels or _PIXELS.get(channels, "gray")}
    if pixels:
        _check_pixel_format(pixels)
    if options.text("rate"):
        raw["framerate"] = f"{options.number('rate', 25.0, least=0.001, most=100000.0):g}"
    return raw


def _check_pixel_format(name: str) -> None:
    with reads_with("video"):
        import av
    try:
        av.VideoFormat(name)
    except ValueError as error:
        raise UsageError(
            f"pixel_format={name} is none that FFmpeg knows",
            expected="its name, as `ffmpeg -pix_fmts` lists them",
            fix="--source-option pixel_format=gray, or rgb24, yuv420p",
        ) from error


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
