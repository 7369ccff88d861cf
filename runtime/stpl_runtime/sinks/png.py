"""Nowcasts as PNG strips: the past, then the forecast, each frame with its lead time."""

from __future__ import annotations

import io

from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.picture import (
    INK,
    MARGIN,
    TITLE,
    canvas,
    text_width,
    tiles,
    title,
    write_text,
)
from stpl_runtime.sinks.writers import write_nowcast


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`png:DIR` or `png:FILE.png`."""
    return DirectorySink("png", (".png",), rest, spec, write_nowcast)


def png_bytes(nowcast: Nowcast) -> bytes:
    """A strip, past | forecast, as a PNG file."""
    every = tiles(nowcast)
    bar = 2 * MARGIN  # a wider gap with a line between past and forecast
    widths = sum(tile.image.width + MARGIN for tile in every)
    heading = title(nowcast)
    strip = canvas(
        max(widths + MARGIN + bar, text_width(heading) + 2 * MARGIN),
        TITLE + every[0].image.height + 2 * MARGIN,
    )
    write_text(strip, (MARGIN, 4), heading)
    x, y = MARGIN, TITLE + MARGIN
    for tile in every:
        if tile.steps == 1:
            strip.paste(INK, (x + MARGIN // 2, y, x + MARGIN // 2 + 2, strip.height - MARGIN))
            x += bar
        strip.paste(tile.image, (x, y))
        x += tile.image.width + MARGIN
    buffer = io.BytesIO()
    strip.save(buffer, "PNG")
    return buffer.getvalue()
