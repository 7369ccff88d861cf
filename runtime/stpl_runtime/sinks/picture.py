"""What the pictures share: a frame as an image, with its time above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stpl_deploy.codec import Array
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.timing import time_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PAST, FORECAST, BACK, INK = (150, 150, 150), (235, 120, 20), (24, 24, 28), (235, 235, 235)
_SIDE = 96
"""Least height of a frame on a picture, in pixels."""
_FONT = 12
MARGIN = 6
TITLE = 20


class Tile(NamedTuple):
    """One labelled frame."""

    image: Image
    steps: int
    """Frames after the newest observed one; 0 or less for the context."""


def tiles(nowcast: Nowcast) -> list[Tile]:
    """Every frame of the context, then of the forecast, labelled with its time."""
    first = 1 - len(nowcast.context)
    past = [_tile(nowcast, frame, first + t) for t, frame in enumerate(nowcast.context)]
    return past + [_tile(nowcast, frame, k + 1) for k, frame in enumerate(nowcast.frames)]


def canvas(width: int, height: int) -> Image:
    """An empty picture."""
    from PIL import Image

    return Image.new("RGB", (width, height), BACK)


def write_text(
    image: Image, at: tuple[int, int], text: str, colour: tuple[int, int, int] = INK
) -> None:
    """Write one line; `at` is its upper left corner."""
    from PIL import ImageDraw

    ImageDraw.Draw(image).text(at, text, fill=colour, font=_font())


def text_width(text: str) -> int:
    """Width of one line in pixels."""
    return int(np.ceil(_font().getlength(text)))


def title(nowcast: Nowcast) -> str:
    """What is shown, and from when."""
    units = "" if nowcast.units == "1" else f" ({nowcast.units})"
    issued = "" if nowcast.issue_time is None else f", issued {time_text(nowcast.issue_time)}"
    return f"{nowcast.quantity}{units}{issued}"


def _tile(nowcast: Nowcast, frame: Array, steps: int) -> Tile:
    """The frame in a coloured border, with its lead time above."""
    from PIL import Image

    colour = FORECAST if steps > 0 else PAST
    picture = _image(frame, nowcast.low, nowcast.high)
    label = "now" if steps == 0 else nowcast.lead_text(steps)
    width = max(picture.width + 4, text_width(label) + 2)
    tile = canvas(width, picture.height + 4 + TITLE)
    write_text(tile, (1, 2), label, colour)
    tile.paste(Image.new("RGB", (picture.width + 4, picture.height + 4), colour), (0, TITLE))
    tile.paste(picture, (2, TITLE + 2))
    return Tile(tile, steps)


def _image(frame: Array, low: float, high: float) -> Image:
    """`(C, H, W)` in physical units; three channels are colours, else the first one is shown."""
    from PIL import Image

    scaled = np.clip((frame - low) / (high - low), 0.0, 1.0)
    grey = np.rint(scaled * 255.0).astype(np.uint8)  # (C, H, W)
    if len(grey) == 3:
        image = Image.fromarray(np.ascontiguousarray(np.moveaxis(grey, 0, -1)))
    else:
        image = Image.fromarray(grey[0]).convert("RGB")
    factor = max(1, -(-_SIDE // image.height))
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(_FONT)
    except (OSError, ImportError, TypeError):  # Pillow without FreeType has one fixed font
        return ImageFont.load_default()
