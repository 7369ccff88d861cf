"""Other colours than the project's own: a colour-blind-safe one, and those of weather services.

A table of rain rates is one of reflectivity too, and the other way round, by Z = 200 R^1.6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stpl_core.rain import dbz_from_rate, rate_from_dbz

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Palette:
    """Classes of rain and their colours."""

    title: str
    units: str
    """Of `limits`: mm h-1 or dBZ."""
    limits: tuple[float, ...]
    """Where the classes begin."""
    colours: tuple[Colour, ...]
    """One for each limit: of the values from there on."""

    def limits_in(self, units: str) -> tuple[float, ...] | None:
        """The limits in mm h-1 or dBZ, to three digits; None for any other unit."""
        if units == self.units:
            return self.limits
        values = np.asarray(self.limits, np.float64)
        if units == "dBZ":
            values = dbz_from_rate(values)
        elif units == "mm h-1":
            values = rate_from_dbz(values)
        else:
            return None
        return tuple(float(f"{value:.3g}") for value in values)


NATIONAL = {
    "australia": Palette(
        "Australia (BoM)",
        "mm h-1",
        (0.2, 0.5, 1.5, 2.5, 4, 6, 10, 15, 20, 30, 40, 50, 60, 75, 100),
        ((245, 245, 255), (180, 180, 255), (120, 120, 255), (20, 20, 255), (0, 216, 195),
         (0, 150, 144), (0, 102, 102), (255, 255, 0), (255, 200, 0), (255, 150, 0), (255, 100, 0),
         (255, 0, 0), (200, 0, 0), (120, 0, 0), (40, 0, 0)),
    ),
    "belgium": Palette(
        "Belgium (STEPS-BE)",
        "mm h-1",
        (0.1, 0.25, 0.4, 0.63, 1, 1.6, 2.5, 4, 6.3, 10, 16, 25, 40, 63),
        ((0, 255, 255), (0, 191, 255), (30, 144, 255), (0, 0, 255), (127, 255, 0), (50, 205, 50),
         (0, 128, 0), (0, 100, 0), (255, 255, 0), (255, 215, 0), (255, 165, 0), (255, 0, 0),
         (255, 0, 255), (139, 0, 139)),
    ),
    "netherlands": Palette(
        "Netherlands (STEPS-NL)",
        "mm h-1",
        (0.1, 0.5, 1.0, 1.6, 2.5, 4.0, 6.4, 10.0, 16.0, 25.0, 40.0),
        ((211, 211, 211), (135, 206, 250), (0, 191, 255), (0, 0, 255), (0, 0, 139), (255, 255, 0),
         (255, 215, 0), (255, 140, 0), (255, 0, 0), (139, 0, 0), (139, 0, 139)),
    ),
    "usa": Palette(
        "United States (NWS)",
        "dBZ",
        (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70),
        ((0, 236, 236), (1, 160, 246), (0, 0, 246), (0, 255, 0), (0, 200, 0), (0, 144, 0),
         (255, 255, 0), (231, 192, 0), (255, 144, 0), (255, 0, 0), (214, 0, 0), (192, 0, 0),
         (255, 0, 255), (153, 85, 201)),
    ),
}  # fmt: skip
"""Word -> palette: as pysteps has the first three (BOM-RF3, STEPS-BE, STEPS-NL), MetPy the last
(NWSReflectivity)."""

CIVIDIS = (
    (254, 232, 56), (225, 204, 85), (195, 179, 105), (165, 156, 116), (138, 134, 120),
    (112, 113, 115), (87, 93, 109), (59, 73, 108), (18, 53, 112), (0, 34, 78),
)  # fmt: skip
"""Matplotlib's, from weak to strong: it looks much the same with any colour-blindness, and darkens
evenly."""
