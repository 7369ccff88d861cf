"""Nowcasts as MP4 films: the past, then the forecast, once; H.264, which every browser plays."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np

from stpl_core.drawing.colours import STANDARD
from stpl_core.readers.libraries import reads_with
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, temporary_file
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.drawing.animation import pages
from stpl_runtime.sinks.drawing.picture import chosen_palette, frames_per_second
from stpl_runtime.sinks.file_format import FileFormat

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_FPS = 5.0
_CODECS = (("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"qscale": "3"}))
"""The first that this FFmpeg can write, and its settings."""


def mp4_bytes(nowcast: Nowcast, fps: float = _FPS, palette: str = STANDARD) -> bytes:
    """A film of past and forecast as an MP4 file.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    with reads_with("video"):
        import av
    images = [page.image for page in pages(nowcast, palette)]
    name, settings = next(one for one in _CODECS if one[0] in av.codecs_available)
    with temporary_file("nowcast.mp4") as path:  # faststart reads again what it wrote
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as film:
            rate = Fraction(fps).limit_denominator(1000)
            track = cast("VideoStream", film.add_stream(name, rate=rate, options=settings))
            # 4:2:0 has a colour for every two by two pixels: an odd side gets a black line.
            track.width, track.height = (-(-side // 2) * 2 for side in images[0].size)
            track.pix_fmt = "yuv420p"
            for image in images:
                page = np.asarray(image.crop((0, 0, track.width, track.height)))
                film.mux(track.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
            film.mux(track.encode())
        return path.read_bytes()


MP4 = FileFormat((".mp4",), mp4_bytes, extra="video", libraries=("av",), kind="animation")
FORMATS = (MP4,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`mp4:DIR` or `mp4:FILE.mp4`; `mp4,fps=10:` plays it faster.

    Raises:
        UsageError: no such colours, or fps is no number that a film can have.
        MissingExtraError: PyAV is not installed.
    """
    fps, palette = frames_per_second("mp4", spec, _FPS), chosen_palette("mp4", spec)
    own = replace(MP4, content=lambda nowcast: mp4_bytes(nowcast, fps, palette))
    return DirectorySink("mp4", own, rest, spec, options=("fps", "colours"))
