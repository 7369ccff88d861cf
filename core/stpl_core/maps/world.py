"""The map that is shipped: coasts, borders, lakes, rivers and cities of the whole Earth.

Natural Earth, in the public domain; `benchmarks/map_data.py` made the file from its 1:10m coasts
and borders, its 1:50m lakes and rivers and its 1:110m cities. Each vertex has a level: how coarse a
map still needs it. So one set of lines is a map of a town and of a continent.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_DEGREE = 500
"""The file's unit: 1/500 degree, 222 m of latitude."""
FINEST_KM = 0.4
"""Level 0 leaves out what is off by less; each level is twice as coarse."""
LEVELS = 10

LAYERS = ("coasts", "borders", "lakes", "rivers")


@dataclass(frozen=True)
class Lines:
    """Many lines, end to end."""

    points: NDArray[np.float64]
    """`(N, 2)`, longitude and latitude in degrees."""
    line: NDArray[np.int32]
    """`(N,)`, rising: which line each point is of."""


@dataclass(frozen=True)
class City:
    """A city and where it lies, in degrees."""

    name: str
    lon: float
    lat: float


def level_for(km: float) -> int:
    """The coarsest level whose lines are off by about `km` at most."""
    return max(0, min(LEVELS - 1, math.floor(math.log2(max(km, FINEST_KM) / FINEST_KM))))


@cache
def lines(layer: str, level: int) -> Lines:
    """The lines of one of `LAYERS`, as simple as `level` allows."""
    points, line, levels = _layer(layer)
    keep = levels >= level
    kept = line[keep]
    lengths = np.bincount(kept, minlength=1)
    long = lengths[kept] > 1  # of a ring one point is left where it has become too small
    return Lines(points[keep][long], kept[long])


@cache
def cities() -> tuple[City, ...]:
    """Capitals and the largest cities, the largest last."""
    with _open() as stored:
        names, places = stored["city_names"].tolist(), stored["city_places"] / PER_DEGREE
    return tuple(
        City(name, float(lon), float(lat)) for name, (lon, lat) in zip(names, places, strict=True)
    )


@cache
def _layer(
    layer: str,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.uint8]]:
    with _open() as stored:
        steps, counts = stored[f"{layer}_steps"], stored[f"{layer}_counts"]
        levels = stored[f"{layer}_levels"]
    points = np.cumsum(steps, axis=1).T / PER_DEGREE
    return points, np.repeat(np.arange(len(counts), dtype=np.int32), counts), levels


def _open() -> Any:
    content = files("stpl_core.maps").joinpath("natural-earth.npz").read_bytes()
    return np.load(io.BytesIO(content), allow_pickle=False)
