"""Nowcasts as animated GIFs: the past, then the forecast, over and over."""

from __future__ import annotations

import io
from pathlib import Path

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec, make_directory, write_whole
from stpl_runtime.sinks.picture import MARGIN, TITLE, canvas, text_width, tiles, title, write_text

_FRAME_MS = 200
_PAUSE_MS = 1000


class GifSink:
    """Writes `FILE.gif`, the latest nowcast, or `DIR/nowcast_<issue time>.gif`, each of them."""

    def __init__(self, rest: str, spec: SinkSpec | None = None) -> None:
        """Make the directory `rest`, or that of the file `rest` where it ends in .gif."""
        path = Path(rest)
        self._latest = path if path.suffix.lower() == ".gif" else None
        make_directory(path.parent if self._latest else path)
        self.path, self.name = path, f"gif:{path}"

    def write(self, nowcast: Nowcast) -> None:
        """See `stpl_runtime.sink.Sink`."""
        write_whole(self._latest or self.path / f"{nowcast.name}.gif", gif_bytes(nowcast))

    def close(self) -> None:
        """Nothing is open."""


def gif_bytes(nowcast: Nowcast) -> bytes:
    """An animation of past and forecast as a GIF file."""
    every = tiles(nowcast)
    heading = title(nowcast)
    width = max(text_width(heading), *(tile.image.width for tile in every)) + 2 * MARGIN
    height = TITLE + every[0].image.height + 2 * MARGIN
    pages = []
    for tile in every:
        page = canvas(width, height)
        write_text(page, (MARGIN, 4), heading)
        page.paste(tile.image, (MARGIN, TITLE + MARGIN))
        pages.append(page)
    pauses = [_PAUSE_MS if tile.steps == 0 else _FRAME_MS for tile in every]
    pauses[-1] = _PAUSE_MS
    buffer = io.BytesIO()
    pages[0].save(buffer, "GIF", save_all=True, append_images=pages[1:], duration=pauses, loop=0)
    return buffer.getvalue()
