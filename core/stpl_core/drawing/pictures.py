"""How frames become pictures: every picture of frames that the project makes is drawn here.

The colours are those of `stpl_core.drawing.colours`; what is laid out around the frames differs.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.drawing.colours import (
    INK,
    NO_DATA_COLOUR,
    NO_ECHO_COLOUR,
    Colour,
    ColourMap,
    Picture,
    colour_map,
    difference_map,
)
from stpl_core.reader import NO_DATA, VALUE, States
from stpl_core.scores.images import Mask

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_FONT = 12
T = TypeVar("T", bound=np.generic)


def frame_picture(
    frame: Array,
    colours: ColourMap,
    *,
    observed: Mask | None = None,
    state: States | None = None,
    marks_no_echo: bool = False,
    no_data: Colour = NO_DATA_COLOUR,
) -> Picture:
    """A frame in colours, `(H, W, 3)`.

    Args:
        frame: `(C, H, W)`, physical units. Three channels of brightness are red, green and blue; of
            others the first is drawn.
        colours: of its unit.
        observed: `(H, W)`, False where there is no data; None: all.
        state: `(H, W)` of a reader, which knows no echo too.
        marks_no_echo: what lies below the first class is no echo.
        no_data: the colour of what is not observed.
    """
    if colours.is_grey and len(frame) == 3:
        low, high = colours.limits
        share = np.clip((frame - low) / ((high - low) or 1.0), 0.0, 1.0)
        levels = np.rint(np.nan_to_num(share) * 255.0).astype(np.uint8)  # (3, H, W)
        picture: Picture = np.ascontiguousarray(np.moveaxis(levels, 0, -1))
    else:
        picture = colours.picture(frame[0], state)
        if marks_no_echo and colours.classes:
            picture[frame[0] < colours.limits[0]] = NO_ECHO_COLOUR
    if observed is not None:
        picture[~observed] = no_data
    return picture


def difference_picture(
    forecast: Array, truth: Array, valid: Mask | None, units: str, low: float, high: float
) -> Picture:
    """Forecast minus observed, `(C, H, W)` both, as `(H, W, 3)`; grey where `valid` is False.

    Rain below the first class of its colours counts as none, so that only what is seen differs.
    """
    colours = colour_map(units, low, high)
    if colours.classes:
        least = np.float32(colours.limits[0])
        forecast, truth = np.maximum(forecast, least), np.maximum(truth, least)
    error = (forecast - truth).mean(axis=0)  # (H, W)
    state = np.full(error.shape, VALUE, np.uint8)
    if valid is not None:
        state[~valid] = NO_DATA
    return difference_map(units, low, high).picture(error, state)


class LegendEntry(NamedTuple):
    """A colour, and the values that have it."""

    colour: Colour
    low: float | None
    """None: any below `high`."""
    high: float | None
    """None: `low` or more. Equal to `low` on a ramp."""


def legend_entries(colours: ColourMap, samples: int) -> list[LegendEntry]:
    """The classes from below; of a ramp, so many colours from one end to the other."""
    if colours.classes:
        ends = [None, *colours.limits, None]
        return [
            LegendEntry(colour, *between)
            for colour, *between in zip(colours.colours, ends[:-1], ends[1:], strict=True)
        ]
    values = np.linspace(colours.limits[0], colours.limits[-1], samples, dtype=np.float32)
    return [
        LegendEntry((red, green, blue), value, value)
        for (red, green, blue), value in zip(
            colours.picture(values[None])[0].tolist(), values.tolist(), strict=True
        )
    ]


def thinned(values: NDArray[T], most: int) -> NDArray[T]:
    """Every second, third, ... pixel of `(..., H, W)`, so that no side is longer than `most`."""
    stride = max(1, -(-max(values.shape[-2:]) // most))
    return values[..., ::stride, ::stride]


def canvas(width: int, height: int, ground: Colour) -> Image:
    """An empty picture."""
    from PIL import Image

    return Image.new("RGB", (width, height), ground)


def write_text(image: Image, at: tuple[int, int], text: str, colour: Colour = INK) -> None:
    """Write one line; `at` is its upper left corner."""
    from PIL import ImageDraw

    ImageDraw.Draw(image).text(at, text, fill=colour, font=font())


def text_width(text: str, size: float = _FONT) -> int:
    """Width of one line in pixels."""
    return int(np.ceil(font(size).getlength(text)))


def scaled(picture: Picture, width: int, height: int) -> Image:
    """A picture of another size, every pixel a box of one colour."""
    from PIL import Image

    return Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)


def png_of(picture: Picture, compress_level: int = 4) -> bytes:
    """A picture as a PNG file of its own size; 9 is the smallest."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.save(file, "PNG", compress_level=compress_level)
    return file.getvalue()


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, which has them at the same place always."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def font(size: float = _FONT) -> FreeTypeFont | ImageFont:
    """Pillow's own letters."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (OSError, ImportError, TypeError):  # Pillow without FreeType has one fixed font
        return ImageFont.load_default()
