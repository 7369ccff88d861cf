"""The pages of an animation, GIF or MP4: one frame each, under the title and what colours mean."""

from __future__ import annotations

from stpl_core.drawing.colours import DARK, INK_ON_DARK, STANDARD
from stpl_core.drawing.pictures import canvas, text_width, write_text
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sinks.drawing.legend import legend
from stpl_runtime.sinks.drawing.picture import MARGIN, TITLE, Tile, tiles, title

_MOST = 800
"""Greatest height of a frame, pixels: on a page it stands alone."""


def pages(nowcast: Nowcast, palette: str = STANDARD) -> list[Tile]:
    """Each frame with its lead time and valid time, all pages of one size."""
    every = tiles(nowcast, _MOST, with_times=True, palette=palette)
    heading = title(nowcast)
    widest = max(tile.image.width for tile in every)
    key = legend(nowcast, widest, palette)
    top = TITLE + (0 if key is None else key.height)
    width = max(text_width(heading), widest, 0 if key is None else key.width) + 2 * MARGIN
    height = top + every[0].image.height + 2 * MARGIN
    made = []
    for tile in every:
        page = canvas(width, height, DARK)
        write_text(page, (MARGIN, 4), heading, INK_ON_DARK)
        if key is not None:
            page.paste(key, (MARGIN, TITLE + 2))
        page.paste(tile.image, (MARGIN, top + MARGIN))
        made.append(Tile(page, tile.steps))
    return made
