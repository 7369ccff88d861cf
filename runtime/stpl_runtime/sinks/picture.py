"""What the pictures share: a frame as an image, with its time above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.colours import ColourMap, colour_map
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.options import Options
from stpl_runtime.sink import SinkSpec
from stpl_runtime.timing import utc_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PAST, FORECAST, BACK, INK = (150, 150, 150), (235, 120, 20), (24, 24, 28), (235, 235, 235)
STAND_IN, UNSEEN = (215, 60, 160), (52, 58, 92)
"""The border of a frame that was not observed, and the pixels that were not."""
_SIDE = 96
"""Least height of a frame on a picture, in pixels."""
_MOST = 384
"""Greatest height: a strip of a whole country's frames must still open."""
_FONT = 12
MARGIN = 6
TITLE = 20


class Tile(NamedTuple):
    """One labelled frame."""

    image: Image
    steps: int
    """Frames after the newest observed one; 0 or less for the context."""


def tiles(nowcast: Nowcast) -> list[Tile]:
    """Every frame of the context, then of the forecast, labelled with its time.

    A frame that stands in for one that was missing says so; pixels that were not observed in the
    newest frame have a colour of their own there and in the forecast.
    """
    first = 1 - len(nowcast.context)
    had = nowcast.stand_ins or ("",) * len(nowcast.context)
    past = [_tile(nowcast, frame, first + t, had[t]) for t, frame in enumerate(nowcast.context)]
    return past + [_tile(nowcast, frame, k + 1) for k, frame in enumerate(nowcast.frames)]


def pages(nowcast: Nowcast) -> list[Tile]:
    """The pages of an animation: each frame under the title, all of one size."""
    every, heading = tiles(nowcast), title(nowcast)
    width = max(text_width(heading), *(tile.image.width for tile in every)) + 2 * MARGIN
    height = TITLE + every[0].image.height + 2 * MARGIN
    made = []
    for tile in every:
        page = canvas(width, height)
        write_text(page, (MARGIN, 4), heading)
        page.paste(tile.image, (MARGIN, TITLE + MARGIN))
        made.append(Tile(page, tile.steps))
    return made


def frames_per_second(word: str, spec: SinkSpec | None, usual: float) -> float:
    """The option `fps` of an animation's word.

    Raises:
        UsageError: it is no number from 0.1 to 50, which all players can show.
    """
    given = (spec or SinkSpec()).options
    options = Options(f"the sink {word}", given, ("fps",), f"--sink {word},")
    return options.number("fps", usual, least=0.1, most=50.0)


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
    issued = "" if nowcast.issue_time is None else f", issued {utc_text(nowcast.issue_time)}"
    filled = sum(map(bool, nowcast.stand_ins))
    missing = f", {filled} of {len(nowcast.context)} frames not observed" if filled else ""
    stream = f"{nowcast.stream}: " if nowcast.stream else ""
    return f"{stream}{nowcast.quantity}{units}{issued}{missing}"


def _tile(nowcast: Nowcast, frame: Array, steps: int, stand_in: str = "") -> Tile:
    """The frame in a coloured border, with its lead time above."""
    from PIL import Image

    colour = FORECAST if steps > 0 else STAND_IN if stand_in else PAST
    observed = nowcast.observed if steps >= 0 else None
    picture = _image(frame, nowcast, observed)
    label = "now" if steps == 0 else nowcast.lead_text(steps)
    label = f"{label} {stand_in}".strip()
    width = max(picture.width + 4, text_width(label) + 2)
    tile = canvas(width, picture.height + 4 + TITLE)
    write_text(tile, (1, 2), label, colour)
    tile.paste(Image.new("RGB", (picture.width + 4, picture.height + 4), colour), (0, TITLE))
    tile.paste(picture, (2, TITLE + 2))
    return Tile(tile, steps)


def _image(frame: Array, nowcast: Nowcast, observed: NDArray[np.bool_] | None) -> Image:
    """`(C, H, W)` in physical units: three channels of pictures as RGB, else the first one.

    Rain, reflectivity and the like have the colours of every other picture of them.
    """
    from PIL import Image

    if is_colour_picture(nowcast):
        scaled = np.clip((frame - nowcast.low) / (nowcast.high - nowcast.low), 0.0, 1.0)
        levels = np.rint(np.nan_to_num(scaled) * 255.0).astype(np.uint8)  # (C, H, W)
        image = Image.fromarray(np.ascontiguousarray(np.moveaxis(levels, 0, -1)))
    else:
        image = Image.fromarray(colours_of(nowcast).picture(frame[0]))
    if observed is not None and not observed.all():
        unseen = Image.fromarray(np.where(observed, 0, 255).astype(np.uint8))
        image.paste(UNSEEN, mask=unseen)
    if image.height > _MOST:
        shrink = _MOST / image.height
        return image.resize((max(1, round(image.width * shrink)), _MOST), Image.Resampling.BOX)
    factor = max(1, -(-_SIDE // image.height))
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def is_colour_picture(nowcast: Nowcast) -> bool:
    """Whether the three channels of a frame are red, green and blue."""
    return nowcast.units == "1" and nowcast.frames.shape[-3] == 3


def colours_of(nowcast: Nowcast) -> ColourMap:
    """The colours of the first channel."""
    if nowcast.units == "1":  # grey over the codec's range, which need not be 0 to 1
        return ColourMap((nowcast.low, nowcast.high), ((0, 0, 0), (255, 255, 255)), classes=False)
    return colour_map(nowcast.units, nowcast.low, nowcast.high)


def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(_FONT)
    except (OSError, ImportError, TypeError):  # Pillow without FreeType has one fixed font
        return ImageFont.load_default()
