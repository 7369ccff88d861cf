"""Frames and differences as PNG, and what their colours mean."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from stpl_core.codec import Array
from stpl_core.colours import (
    NO_DATA_COLOUR,
    NO_ECHO_COLOUR,
    ColourMap,
    Picture,
    colour_map,
)
from stpl_core.reader import NO_DATA, NO_ECHO, VALUE
from stpl_core.scores.images import Mask

_RAIN = ("mm h-1", "mm", "dBZ")
_DIFFERENCES = {
    "mm h-1": (0.1, 0.5, 2.0, 5.0, 15.0),
    "mm": (0.01, 0.05, 0.2, 0.5, 2.0),
    "dBZ": (2.5, 5.0, 10.0, 20.0, 30.0),
}
"""Limits of the classes of a difference, on both sides of zero."""
_TOO_LITTLE = ((16, 58, 128), (44, 100, 178), (92, 148, 208), (154, 194, 230), (208, 226, 243))
_NONE = (246, 246, 244)
_TOO_MUCH = ((250, 221, 203), (241, 176, 142), (222, 118, 84), (188, 58, 48), (122, 16, 38))
_LEGEND_STEPS = 5


def difference_map(units: str, low: float, high: float) -> ColourMap:
    """Colours of forecast minus observed: blue is too little, white none, red too much."""
    limits = _DIFFERENCES.get(units)
    if limits is None:
        most = 0.5 * (high - low)
        colours = (_TOO_LITTLE[0], _TOO_LITTLE[2], _NONE, _TOO_MUCH[2], _TOO_MUCH[4])
        return ColourMap((-most, most), colours, classes=False)
    both = (*(-limit for limit in reversed(limits)), *limits)
    return ColourMap(both, (*_TOO_LITTLE, _NONE, *_TOO_MUCH), classes=True)


def frame_png(frame: Array, observed: Mask | None, units: str, low: float, high: float) -> bytes:
    """A frame as a PNG of its own size.

    Args:
        frame: `(C, H, W)`, physical units; three grey levels are a colour picture, else the first
            channel is shown.
        observed: `(H, W)`, False where there is no data; None: all.
        units: in CF notation.
        low: value at the lower end of the colours, where the unit has no classes.
        high: value at their upper end.
    """
    colours = colour_map(units, low, high)
    if units == "1" and len(frame) == 3:
        known = np.nan_to_num(np.moveaxis(frame, 0, -1))  # (H, W, 3)
        picture: Picture = (np.clip(known, 0, 1) * 255).round().astype(np.uint8)
        if observed is not None:
            picture[~observed] = NO_DATA_COLOUR
        return _png(picture)
    state = np.full(frame.shape[1:], VALUE, np.uint8)
    if units in _RAIN:
        state[frame[0] < colours.limits[0]] = NO_ECHO
    if observed is not None:
        state[~observed] = NO_DATA
    return _png(colours.picture(frame[0], state))


def difference_png(
    forecast: Array, truth: Array, valid: Mask | None, units: str, low: float, high: float
) -> bytes:
    """Forecast minus observed, `(C, H, W)` both, as a PNG; grey where `valid` `(H, W)` is False.

    Rain below the first class of its colours counts as none, so that only what is seen differs.
    """
    if units in _RAIN:
        least = np.float32(colour_map(units, low, high).limits[0])
        forecast, truth = np.maximum(forecast, least), np.maximum(truth, least)
    error = (forecast - truth).mean(axis=0)  # (H, W)
    state = np.full(error.shape, VALUE, np.uint8)
    if valid is not None:
        state[~valid] = NO_DATA
    return _png(difference_map(units, low, high).picture(error, state))


def _png(picture: Picture) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG", compress_level=4)
    return file.getvalue()


def legend(units: str, low: float, high: float) -> dict[str, Any]:
    """The colours of frames, for a legend bar: see `_bar`; and of no echo and no data."""
    bar = _bar(colour_map(units, low, high))
    if units in _RAIN:
        bar["colours"] = bar["colours"][1:]
        bar["no_echo"] = _hex(NO_ECHO_COLOUR)
    return {**bar, "no_data": _hex(NO_DATA_COLOUR)}


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


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
