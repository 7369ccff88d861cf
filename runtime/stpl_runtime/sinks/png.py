"""Nowcasts as PNG sheets: the past, then the forecast, each frame with its lead time."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from stpl_core.drawing.colours import DARK, INK_ON_DARK, STANDARD
from stpl_core.drawing.pictures import canvas, png_size, text_width, write_text
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sink import SinkSpec
from stpl_runtime.sinks.directory import DirectorySink
from stpl_runtime.sinks.drawing.legend import legend
from stpl_runtime.sinks.drawing.picture import MARGIN, TITLE, Tile, chosen_palette, tiles, title
from stpl_runtime.sinks.file_format import FileFormat

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDEST = 1600
"""Pixels of one row; what is wider becomes a sheet."""
_SQUARE = 1.8
"""A sheet's longer side over its shorter one, at most."""


def png_bytes(nowcast: Nowcast, palette: str = STANDARD) -> bytes:
    """Past and forecast as a PNG file, under the title and what the colours mean.

    One row, past | forecast, where it is narrow enough; else a sheet that is about square, whose
    past and forecast have rows of their own with a line between them.
    """
    return _png(nowcast, tiles(nowcast, palette=palette), palette)


def png_bytes_within(nowcast: Nowcast, width: int, palette: str = STANDARD) -> bytes:
    """The same where it is no wider than `width` pixels.

    Else as many frames in one row as fit, two at least: the newest one, and lead times up to the
    last.
    """
    every = tiles(nowcast, palette=palette)
    whole = _png(nowcast, every, palette)
    if png_size(whole)[0] <= width:
        return whole
    room = (width - 3 * MARGIN) // (max(tile.image.width for tile in every) + MARGIN)
    ahead = max(1, min(room - 1, len(nowcast.frames)))
    steps = {0, *(round(len(nowcast.frames) * n / ahead) for n in range(1, ahead + 1))}
    return _png(nowcast, [tile for tile in every if tile.steps in steps], palette)


def _png(nowcast: Nowcast, shown: list[Tile], palette: str) -> bytes:
    past = [tile.image for tile in shown if tile.steps <= 0]
    future = [tile.image for tile in shown if tile.steps > 0]
    body = _row(past, future)
    if body.width > _WIDEST:
        body = _sheet(past, future)
    heading = title(nowcast)
    key = legend(nowcast, body.width - 2 * MARGIN, palette)
    top = TITLE + (0 if key is None else key.height)
    width = max(body.width, text_width(heading) + 2 * MARGIN, key.width + MARGIN if key else 0)
    picture = canvas(width, top + body.height, DARK)
    write_text(picture, (MARGIN, 4), heading, INK_ON_DARK)
    if key is not None:
        picture.paste(key, (MARGIN, TITLE + 2))
    picture.paste(body, (0, top))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


PNG = FileFormat((".png",), png_bytes, media_type="image/png", kind="picture")
FORMATS = (PNG,)


def open_sink(rest: str, spec: SinkSpec | None = None) -> DirectorySink:
    """`png:DIR` or `png:FILE.png`; `png,colours=cividis:` draws in other colours.

    Raises:
        UsageError: no such colours.
    """
    palette = chosen_palette("png", spec)
    own = replace(PNG, content=lambda nowcast: png_bytes(nowcast, palette))
    return DirectorySink("png", own, rest, spec, options=("colours",))


def _row(past: list[Image], future: list[Image]) -> Image:
    """All in one row, with a line between past and forecast."""
    bar = 2 * MARGIN  # a wider gap for the line
    widths = sum(image.width + MARGIN for image in past + future)
    row = canvas(widths + MARGIN + bar, past[0].height + 2 * MARGIN, DARK)
    x = MARGIN
    for n, image in enumerate(past + future):
        if n == len(past):
            row.paste(
                INK_ON_DARK, (x + MARGIN // 2, MARGIN, x + MARGIN // 2 + 2, row.height - MARGIN)
            )
            x += bar
        row.paste(image, (x, MARGIN))
        x += image.width + MARGIN
    return row


def _sheet(past: list[Image], future: list[Image]) -> Image:
    """Rows of the past, a line, rows of the forecast."""
    width = max(image.width for image in past + future) + MARGIN
    height = past[0].height + MARGIN
    bar = 2 * MARGIN

    def size(columns: int) -> tuple[int, int]:
        rows = -(-len(past) // columns) - (-len(future) // columns)
        return columns * width + MARGIN, rows * height + MARGIN + bar

    every = range(1, max(len(past), len(future)) + 1)
    square = [columns for columns in every if max(size(columns)) < _SQUARE * min(size(columns))]
    # Of those, the one that leaves least room empty.
    columns = min(square or every, key=lambda count: size(count)[0] * size(count)[1])
    sheet = canvas(*size(columns), DARK)
    y = MARGIN
    for images in (past, future):
        if images is future:
            sheet.paste(
                INK_ON_DARK, (MARGIN, y + MARGIN // 2, sheet.width - MARGIN, y + MARGIN // 2 + 2)
            )
            y += bar
        for n, image in enumerate(images):
            sheet.paste(image, (MARGIN + n % columns * width, y + n // columns * height))
        y += -(-len(images) // columns) * height
    return sheet
