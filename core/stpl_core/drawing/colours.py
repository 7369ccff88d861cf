"""The one table of colours: classes for radar, ramps for the rest, differences, and what is around.

Rain and reflectivity have fixed classes, so that two pictures can be compared; anything else is
drawn from its least to its greatest value. No echo is white; no data is grey on paper, blue on dark
ground.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.drawing.palettes import CIVIDIS, NATIONAL
from stpl_core.drawing.palettes import Colour as Colour
from stpl_core.reader import NO_DATA, NO_ECHO, States

Picture = NDArray[np.uint8]
"""`(H, W, 3)`."""
STANDARD, SAFE = "standard", "cividis"
"""The project's own colours, and those that no colour-blindness confuses."""

NO_ECHO_COLOUR, NO_DATA_COLOUR = (255, 255, 255), (208, 208, 204)
NO_DATA_ON_DARK: Colour = (52, 58, 92)
PAPER, INK = (250, 250, 248), (40, 40, 40)
EMPTY: Colour = (225, 225, 222)
"""A place on paper that has no frame."""
DARK, INK_ON_DARK = (24, 24, 28), (235, 235, 235)
PAST, FORECAST, STAND_IN = (150, 150, 150), (235, 120, 20), (215, 60, 160)
"""Borders and times of frames: observed, predicted, in the place of one that was not observed."""

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
_DIFFERENCES = {
    "mm h-1": (0.1, 0.5, 2.0, 5.0, 15.0),
    "mm": (0.01, 0.05, 0.2, 0.5, 2.0),
    "dBZ": (2.5, 5.0, 10.0, 20.0, 30.0),
}
"""Limits of the classes of a difference, on both sides of zero."""
_CHANCES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Limits of the classes of a chance."""
_TOO_LITTLE = ((16, 58, 128), (44, 100, 178), (92, 148, 208), (154, 194, 230), (208, 226, 243))
_NO_DIFFERENCE = (246, 246, 244)
_TOO_MUCH = ((250, 221, 203), (241, 176, 142), (222, 118, 84), (188, 58, 48), (122, 16, 38))


@dataclass(frozen=True)
class ColourMap:
    """Turns values into colours."""

    limits: tuple[float, ...]
    """Of the classes; for a ramp its two ends."""
    colours: tuple[Colour, ...]
    classes: bool

    @property
    def is_grey(self) -> bool:
        """Whether it is that of brightness, of which three channels are a colour picture."""
        return self.colours == _GREY

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


def palettes(units: str) -> dict[str, str]:
    """Word -> title of the palettes that a unit in CF notation can be drawn with, ours first."""
    if units == "1":  # brightness is grey
        return {STANDARD: "grey"}
    national = {word: one.title for word, one in NATIONAL.items() if one.limits_in(units)}
    return {STANDARD: "standard", SAFE: "colour-blind safe", **national}


def colour_map(units: str, low: float, high: float, palette: str = STANDARD) -> ColourMap:
    """The map of a unit in CF notation: classes for rain and reflectivity, else low to high.

    Args:
        units: of the values.
        low: the lower end, where the unit has no classes.
        high: the upper end.
        palette: a word of `palettes(units)`; any other is the standard one.
    """
    if palette in NATIONAL and (steps := NATIONAL[palette].limits_in(units)):
        return ColourMap(steps, (NO_ECHO_COLOUR, *NATIONAL[palette].colours), classes=True)
    limits = {"mm h-1": _RAIN_MM_H, "mm": _RAIN_MM, "dBZ": _DBZ}.get(units)
    if limits is not None:
        colours = (NO_ECHO_COLOUR, *CIVIDIS[1:]) if palette == SAFE else _CLASSES
        return ColourMap(limits, colours, classes=True)
    if units == "1":
        return ColourMap((low, high), _GREY, classes=False)
    return ColourMap((low, high), CIVIDIS[::-1] if palette == SAFE else _RAMP, classes=False)


def chance_map() -> ColourMap:
    """Colours of a chance of 0 to 1; below 5% none. No colour-blindness confuses them."""
    return ColourMap(_CHANCES, (NO_ECHO_COLOUR, *CIVIDIS), classes=True)


def difference_map(units: str, low: float, high: float) -> ColourMap:
    """Colours of forecast minus observed: blue is too little, white none, red too much."""
    limits = _DIFFERENCES.get(units)
    if limits is None:
        most = 0.5 * (high - low)
        sides = (_TOO_LITTLE[0], _TOO_LITTLE[2], _NO_DIFFERENCE, _TOO_MUCH[2], _TOO_MUCH[4])
        return ColourMap((-most, most), sides, classes=False)
    both = (*(-limit for limit in reversed(limits)), *limits)
    return ColourMap(both, (*_TOO_LITTLE, _NO_DIFFERENCE, *_TOO_MUCH), classes=True)
