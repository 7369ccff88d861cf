"""A layer as a picture: on any box of any system it has, and what its colours mean.

Each pixel of a picture has the colour of the frame's pixel in which its middle lies. Nothing is
smoothed: what is seen are the model's own values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stpl_core.drawing.colours import INK, PAPER, Colour, ColourMap
from stpl_core.drawing.pictures import (
    canvas,
    frame_picture,
    legend_entries,
    png_of,
    text_width,
    write_text,
)
from stpl_runtime.page.gis.ground import Box
from stpl_runtime.page.gis.layers import Layer

MOST_PIXELS = 2048
"""Along each side of a picture: 4 million pixels are a few seconds of a small processor."""
_AT_ONCE = 2**18
"""Pixels whose places are computed at once: no more memory than for these."""
_DRY = 64
"""How opaque no echo is on a transparent picture: seen, and the map below it as well."""
_LINE, _SIDE, _EDGE, _RAMP_SAMPLES = 18, 14, 6, 7


@dataclass(frozen=True)
class View:
    """What a picture shows."""

    system: str
    box: Box
    width: int
    height: int
    transparent: bool = True
    """Where nothing was observed, and beside the frame, nothing is drawn."""
    ground: Colour = (255, 255, 255)
    """The colour beside the frame, where the picture is not transparent."""


def map_png(layer: Layer, step: int, style: str, view: View) -> bytes:
    """A layer at one time as a PNG."""
    colours = layer.colours(style)
    frame, seen = layer.frame(step), layer.seen(step)
    table: NDArray[np.uint8] = frame_picture(frame, colours, observed=seen, marks_no_echo=True)
    beside: tuple[int, ...] = view.ground
    if view.transparent:
        opaque = np.where(seen, 255, 0).astype(np.uint8)  # (H, W)
        if colours.classes:
            opaque[seen & (frame[0] < colours.limits[0])] = _DRY
        table = np.concatenate([table, opaque[..., None]], axis=-1)  # (H, W, 4)
        table[~seen] = 0
        beside = (0, 0, 0, 0)
    flat = np.concatenate([table.reshape(-1, table.shape[-1]), np.array([beside], np.uint8)])
    return png_of(flat[_pixels(layer, view)])  # -1 is the last: what lies beside the frame


def _pixels(layer: Layer, view: View) -> NDArray[np.int32]:
    """`(height, width)`: the frame's pixel under each pixel of the picture; -1 beside it."""
    left, bottom, right, top = view.box
    x = left + (np.arange(view.width) + 0.5) * ((right - left) / view.width)
    y = top - (np.arange(view.height) + 0.5) * ((top - bottom) / view.height)
    found = np.empty((view.height, view.width), np.int32)
    rows = max(1, _AT_ONCE // view.width)
    for first in range(0, view.height, rows):
        part = y[first : first + rows]
        east, north = np.tile(x, len(part)), np.repeat(part, view.width)
        numbers = layer.ground.pixels(view.system, east, north)
        found[first : first + len(part)] = numbers.reshape(len(part), view.width)
    return found


@lru_cache(maxsize=32)
def legend_png(colours: ColourMap, units: str) -> bytes:
    """What the colours mean, as a PNG: a line for each."""
    lines = _legend_lines(colours, "" if units == "1" else units)
    width = max(text_width(text) for _, text in lines) + _SIDE + 3 * _EDGE
    image = canvas(width, _LINE * len(lines) + 2 * _EDGE, PAPER)
    for n, (colour, text) in enumerate(lines):
        at = _EDGE + n * _LINE
        image.paste(colour, (_EDGE, at + 2, _EDGE + _SIDE, at + 2 + _SIDE))
        write_text(image, (_SIDE + 2 * _EDGE, at + 2), text, INK)
    return png_of(np.asarray(image, np.uint8))


def _legend_lines(colours: ColourMap, units: str) -> list[tuple[Colour, str]]:
    """From strong to weak; the lowest class is no echo."""
    found = []
    for entry in legend_entries(colours, _RAMP_SAMPLES):
        if entry.low is None:
            found.append(((255, 255, 255), f"below {entry.high:g} {units}"))
        elif entry.low == entry.high:
            found.append((entry.colour, f"{entry.low:.4g} {units}"))
        else:
            found.append((entry.colour, f"{entry.low:g} {units}"))
    return found[::-1]
