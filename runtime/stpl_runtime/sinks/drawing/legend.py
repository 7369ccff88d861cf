"""What the colours of a picture mean: the unit, its classes or its ramp, and what was not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stpl_core.drawing.colours import (
    DARK,
    INK_ON_DARK,
    NO_DATA_ON_DARK,
    STANDARD,
    Colour,
    ColourMap,
    colour_map,
)
from stpl_core.drawing.pictures import canvas, legend_entries, scaled, text_width, write_text
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.sinks.drawing.picture import MARGIN, TITLE, is_colour_picture

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[Colour, str]
"""A colour and what it stands for."""

_SIDE = 12
_RAMP = 120
"""Width of a ramp in pixels."""
_NARROWEST = 480
"""A legend takes at least this width before it goes on in another line."""


def legend(nowcast: Nowcast, widest: int, palette: str = STANDARD) -> Image | None:
    """The legend as a picture, as wide as it must be; None where there is nothing to explain.

    Args:
        nowcast: whose frames are shown.
        widest: boxes beyond this width, or beyond 480 pixels, go on in another line.
        palette: a word of `stpl_core.drawing.colours.palettes`.
    """
    colours = colour_map(nowcast.units, nowcast.low, nowcast.high, palette)
    shows_values = not is_colour_picture(nowcast)
    boxes = _boxes(colours) if shows_values and colours.classes else []
    ramp = colours if shows_values and not colours.classes else None
    if not nowcast.is_observed_everywhere:
        boxes.append((NO_DATA_ON_DARK, "not observed"))
    units = "" if nowcast.units == "1" else nowcast.units
    if ramp is None and not boxes:
        return None
    lines = _lines(units, ramp, boxes, max(widest, _NARROWEST))
    image = canvas(max(line.width for line in lines), TITLE * len(lines), DARK)
    for n, line in enumerate(lines):
        image.paste(line, (0, n * TITLE))
    return image


def _boxes(colours: ColourMap) -> list[Box]:
    """Classes, in the letters that Pillow's own font has."""
    boxes = []
    for colour, low, high in legend_entries(colours, 0):
        text = f"{low or 0:g} to {high or 0:g}"
        if low is None or high is None:
            text = f"below {high:g}" if low is None else f"{low:g} or more"
        boxes.append((colour, text))
    return boxes


def _lines(units: str, ramp: ColourMap | None, boxes: list[Box], widest: int) -> list[Image]:
    parts = [_word(units)] if units else []
    parts += [_scale(ramp)] if ramp is not None else []
    parts += [_box(*box) for box in boxes]
    lines: list[list[Image]] = [[]]
    for part in parts:
        if lines[-1] and sum(one.width for one in lines[-1]) + part.width > widest:
            lines.append([])
        lines[-1].append(part)
    return [_joined(line) for line in lines]


def _joined(parts: list[Image]) -> Image:
    line, x = canvas(sum(part.width for part in parts), TITLE, DARK), 0
    for part in parts:
        line.paste(part, (x, 0))
        x += part.width
    return line


def _word(text: str) -> Image:
    image = canvas(text_width(text) + 2 * MARGIN, TITLE, DARK)
    write_text(image, (0, 2), text, INK_ON_DARK)
    return image


def _box(colour: Colour, text: str) -> Image:
    image = canvas(_SIDE + 4 + text_width(text) + 2 * MARGIN, TITLE, DARK)
    image.paste(colour, (0, 4, _SIDE, 4 + _SIDE))
    write_text(image, (_SIDE + 4, 2), text, INK_ON_DARK)
    return image


def _scale(ramp: ColourMap) -> Image:
    """Every colour of a ramp between its two ends."""
    low, high = (f"{end:g}" for end in ramp.limits)
    values = np.linspace(ramp.limits[0], ramp.limits[-1], _RAMP, dtype=np.float32)
    bar = scaled(ramp.picture(values[None]), _RAMP, _SIDE)
    left = text_width(low) + 4
    image = canvas(left + _RAMP + 4 + text_width(high) + 2 * MARGIN, TITLE, DARK)
    write_text(image, (0, 2), low, INK_ON_DARK)
    image.paste(bar, (left, 4))
    write_text(image, (left + _RAMP + 4, 2), high, INK_ON_DARK)
    return image
