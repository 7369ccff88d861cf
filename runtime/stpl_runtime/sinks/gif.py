"""Nowcasts as animated GIFs: the past, then the forecast, over and over."""

from __future__ import annotations

import io
from dataclasses import replace

from stpl_core.drawing.colours import STANDARD
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.drawing.animation import pages
from stpl_runtime.sinks.drawing.picture import chosen_palette, frames_per_second
from stpl_runtime.sinks.file_format import FileFormat

_FPS = 5.0
_PAUSE_MS = 1000


def gif_bytes(nowcast: Nowcast, fps: float = _FPS, palette: str = STANDARD) -> bytes:
    """An animation of past and forecast as a GIF file."""
    every = pages(nowcast, palette)
    frame_ms = round(1000.0 / fps)
    pauses = [frame_ms if page.steps else max(frame_ms, _PAUSE_MS) for page in every]
    pauses[-1] = max(frame_ms, _PAUSE_MS)
    images = [page.image for page in every]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0)
    return buffer.getvalue()


GIF = FileFormat((".gif",), gif_bytes, media_type="image/gif", kind="animation")
FORMATS = (GIF,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`gif:DIR` or `gif:FILE.gif`; `gif,fps=10:` plays it faster.

    Raises:
        UsageError: no such colours, or fps is no number that a GIF can hold.
    """
    fps, palette = frames_per_second("gif", spec, _FPS), chosen_palette("gif", spec)
    own = replace(GIF, content=lambda nowcast: gif_bytes(nowcast, fps, palette))
    return DirectorySink("gif", own, rest, spec, options=("fps", "colours"))
