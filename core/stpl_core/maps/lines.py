"""What is drawn under the frames of a grid, in its own pixels: made once, used by every picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stpl_core.grid import Grid
from stpl_core.maps.placing import Floats, Place, place_of
from stpl_core.maps.world import LAYERS, Lines, cities, level_for, lines

_STEPS_DEG = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
"""Between the lines of a graticule."""
_GRATICULE_LINES = 7
"""No more than about so many each way."""
_SAMPLES = 24
"""Places along each side of a frame by which its longitudes and latitudes are found."""
_FINE = 120
"""Points of a line of the graticule across the frame."""


@dataclass(frozen=True)
class Spot:
    """A name at a place; x and y in pixels of the frame."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class MapLines:
    """The map of one grid."""

    layers: dict[str, list[Floats]]
    """`coasts`, `borders`, `lakes` and `rivers`: lines `(N, 2)` of x and y in pixels."""
    cities: tuple[Spot, ...]
    """Larger ones first."""
    meridians: tuple[tuple[str, Floats], ...]
    """Their name, such as 5°E, and their line."""
    parallels: tuple[tuple[str, Floats], ...]
    bar_km: float
    """Length of the scale bar: 1, 2 or 5 times a power of ten."""
    bar: float
    """The same in pixels, in the middle of the frame."""


@lru_cache(maxsize=8)
def map_lines(grid: Grid, off_by: float = 0.5) -> MapLines:
    """The map of a grid that has a place on the Earth (`grid.crs_wkt`).

    Args:
        grid: of the frames.
        off_by: pixels that a line may be off, so that it has fewer points.

    Raises:
        MissingExtraError: pyproj is not installed.
    """
    place = place_of(grid)
    level = level_for(off_by * place.pixel_km)
    layers = {layer: place.lines(lines(layer, level)) for layer in LAYERS}
    meridians, parallels = _graticule(place)
    bar_km, bar = scale_bar(place, grid.width / 4)
    return MapLines(layers, tuple(_cities(place)), meridians, parallels, bar_km, bar)


def scale_bar(place: Place, most: float) -> tuple[float, float]:
    """A round length in km, and the same in pixels: no more than `most` pixels."""
    longest = max(place.pixel_km * most, 1e-6)
    power = 10.0 ** math.floor(math.log10(longest))
    bar_km = max(power * times for times in (1, 2, 5) if power * times <= longest)
    return bar_km, bar_km / place.pixel_km


def degree_text(value: float, letters: str) -> str:
    """`5°E`, `0.5°S`; letters: of positive and negative values."""
    turned = (value + 180.0) % 360.0 - 180.0 if letters == "EW" else value
    letter = "" if turned in (0.0, -180.0) else letters[0] if turned > 0 else letters[1]
    return f"{abs(turned):.4g}°{letter}"


def _cities(place: Place) -> list[Spot]:
    known = cities()
    places = place.pixels(np.array([(city.lon, city.lat) for city in known]))
    inside = _inside(place, places)
    return [
        Spot(city.name, float(x), float(y))
        for city, (x, y), there in zip(known, places, inside, strict=True)
        if there
    ][::-1]


def _inside(place: Place, places: Floats) -> NDArray[np.bool_]:
    """Which of `(N, 2)` x and y lie in the frame."""
    size = np.array([place.grid.width, place.grid.height])
    return np.asarray(np.logical_and(places >= 0, places <= size).all(axis=1), np.bool_)


def _graticule(place: Place) -> tuple[tuple[tuple[str, Floats], ...], ...]:
    """Meridians and parallels, a part of one each."""
    west, east, south, north = _span(place)
    found = []
    for low, high, cross, letters in (
        (west, east, (south, north), "EW"),
        (south, north, (west, east), "NS"),
    ):
        step = next((s for s in _STEPS_DEG if (high - low) / s <= _GRATICULE_LINES), 45.0)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        named = []
        for n in range(first, last + 1):
            along = np.linspace(*cross, _FINE)
            fixed = np.full(_FINE, n * step)
            pair = [fixed, along] if letters == "EW" else [along, fixed]
            line = Lines(np.stack(pair, axis=1), np.zeros(_FINE, np.int32))
            text = degree_text(n * step, letters)
            named += [(text, part) for part in place.lines(line)]
        found.append(tuple(named))
    return tuple(found)


def _span(place: Place) -> tuple[float, float, float, float]:
    """The least west, east, south and north that hold the frame; east may be above 180."""
    grid = place.grid
    x, y = np.linspace(0, grid.width, _SAMPLES), np.linspace(0, grid.height, _SAMPLES)
    places = place.degrees(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
    places = places[np.isfinite(places).all(axis=1)]
    if not len(places):
        return 0.0, 0.0, 0.0, 0.0
    south, north = float(places[:, 1].min()), float(places[:, 1].max())
    poles = place.pixels(np.array([[0.0, 89.999], [0.0, -89.999]]))
    inside = _inside(place, poles)
    north, south = (90.0 if inside[0] else north), (-90.0 if inside[1] else south)
    around = np.sort(places[:, 0])
    gaps = np.diff(np.append(around, around[0] + 360.0))
    widest = int(gaps.argmax())
    if inside.any() or gaps[widest] < 30.0:
        return -180.0, 180.0 - 1e-6, south, north
    west = float(around[(widest + 1) % len(around)])
    east = float(around[widest])
    return west, east if east >= west else east + 360.0, south, north
