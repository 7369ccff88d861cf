"""Frames and differences as PNG for the page, and its legends."""

from __future__ import annotations

from typing import Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.drawing.colours import (
    NO_DATA_COLOUR,
    NO_ECHO_COLOUR,
    STANDARD,
    Colour,
    ColourMap,
    chance_map,
    colour_map,
    difference_map,
    palettes,
)
from stpl_core.drawing.pictures import difference_picture, frame_picture, png_of
from stpl_core.scores.images import Mask

_LEGEND_STEPS = 5


def frame_png(
    frame: Array,
    observed: Mask | None,
    units: str,
    low: float,
    high: float,
    palette: str = STANDARD,
) -> bytes:
    """A frame as a PNG of its own size; see `stpl_core.drawing.pictures.frame_picture`.

    Args:
        frame: `(C, H, W)`, physical units.
        observed: `(H, W)`, False where there is no data; None: all.
        units: in CF notation.
        low: value at the lower end of the colours, where the unit has no classes.
        high: value at their upper end.
        palette: a word of `stpl_core.drawing.colours.palettes`.
    """
    colours = colour_map(units, low, high, palette)
    return png_of(frame_picture(frame, colours, observed=observed, marks_no_echo=True))


def chance_png(chance: Array, observed: Mask | None) -> bytes:
    """Chances `(C, H, W)`, 0 to 1, as a PNG of their own size; see `frame_png`."""
    return png_of(frame_picture(chance, chance_map(), observed=observed))


def difference_png(
    forecast: Array, truth: Array, valid: Mask | None, units: str, low: float, high: float
) -> bytes:
    """Forecast minus observed as a PNG; see `stpl_core.drawing.pictures.difference_picture`."""
    return png_of(difference_picture(forecast, truth, valid, units, low, high))


def legends(units: str, low: float, high: float) -> dict[str, dict[str, Any]]:
    """The legend of each palette that the unit can be drawn with, by its word; the standard first.

    Each has its `title`, its bar (see `_bar`), and the colours of no echo and no data.
    """
    return {
        word: {"title": title, **_legend(colour_map(units, low, high, word))}
        for word, title in palettes(units).items()
    }


def _legend(colours: ColourMap) -> dict[str, Any]:
    bar = _bar(colours)
    if colours.classes:
        bar["colours"] = bar["colours"][1:]
        bar["no_echo"] = _hex(NO_ECHO_COLOUR)
    return {**bar, "no_data": _hex(NO_DATA_COLOUR)}


def chance_legend() -> dict[str, Any]:
    """The colours of chances, for a legend bar in percent."""
    found = _legend(chance_map())
    return {**found, "ticks": [f"{100 * limit:.0f}" for limit in chance_map().limits]}


def difference_legend(units: str, low: float, high: float) -> dict[str, Any]:
    """The colours of differences, for a legend bar."""
    return _bar(difference_map(units, low, high))


def _bar(colours: ColourMap) -> dict[str, Any]:
    """`classes`: a box each, `ticks` between or before them; else a ramp, `ticks` along it."""
    if colours.classes:
        ticks = list(colours.limits)
    else:
        low, high = colours.limits
        ticks = np.linspace(low, high, _LEGEND_STEPS).tolist()
    return {
        "classes": colours.classes,
        "colours": [_hex(colour) for colour in colours.colours],
        "ticks": [f"{tick:.4g}" for tick in ticks],
    }


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
