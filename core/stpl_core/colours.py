"""Colours for physical values: classes for radar, ramps for the rest; the same in every picture.

Rain and reflectivity have fixed classes, so that two pictures can be compared; anything else is
drawn from its own least to its greatest value. No echo is white, no data grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.reader import NO_DATA, NO_ECHO, States

Picture = NDArray[np.uint8]
"""`(H, W, 3)`."""

NO_ECHO_COLOUR, NO_DATA_COLOUR = (255, 255, 255), (208, 208, 204)

_RAIN_MM_H = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_RAIN_MM = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_DBZ = (0.0, 7.0, 15.0, 20.0, 25.0, 30.0, 37.0, 45.0, 55.0)
_CLASSES = (
    (232, 240, 248),
    (198, 219, 239),
    (140, 190, 225),
    (74, 149, 203),
    (24, 102, 170),
    (66, 160, 90),
    (245, 220, 90),
    (240, 145, 45),
    (215, 50, 40),
    (140, 30, 110),
)
"""One more than there are limits: the first is below all of them."""
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_GREY = ((0, 0, 0), (255, 255, 255))


@dataclass(frozen=True)
class ColourMap:
    """Turns values into colours."""

    limits: tuple[float, ...]
    """Of the classes; for a ramp its two ends."""
    colours: tuple[tuple[int, int, int], ...]
    classes: bool

    def picture(self, values: Array, state: States | None = None) -> Picture:
        """Colour `(H, W)` values; `state` `(H, W)` marks no echo and no data."""
        if self.classes:
            place = np.digitize(values, self.limits)  # NaN lands in the last class; see below
            rgb = np.array(self.colours, np.uint8)[place]
        else:
            low, high = self.limits
            share = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
            at = np.linspace(0, 1, len(self.colours))
            ramp = np.array(self.colours, np.float64)
            known = np.where(np.isfinite(share), share, 0.0)
            rgb = np.stack([np.interp(known, at, ramp[:, c]) for c in range(3)], axis=-1)
            rgb = rgb.round().astype(np.uint8)
        unknown = ~np.isfinite(values)
        if state is not None:
            rgb[state == NO_ECHO] = NO_ECHO_COLOUR
            unknown = unknown | (state == NO_DATA)
        rgb[unknown] = NO_DATA_COLOUR
        return np.asarray(rgb, np.uint8)


def colour_map(units: str, low: float, high: float) -> ColourMap:
    """The map of a unit (CF notation); `low` and `high` are used where it has no classes."""
    limits = {"mm h-1": _RAIN_MM_H, "mm": _RAIN_MM, "dBZ": _DBZ}.get(units)
    if limits is not None:
        return ColourMap(limits, _CLASSES, classes=True)
    if units == "1":
        return ColourMap((0.0, 1.0), _GREY, classes=False)
    return ColourMap((low, high), _RAMP, classes=False)
