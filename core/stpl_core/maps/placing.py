"""From degrees to a frame's own pixels and back, whatever its projection.

A map in pixels is exact for any grid, and the same for the page, for pictures and for reports.
Positions are of pixel edges: the upper left corner of a frame is (0, 0), its first pixel's centre
(0.5, 0.5); x runs to the right, y down.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stpl_core.grid import Grid
from stpl_core.maps.world import Lines
from stpl_core.readers.libraries import reads_with

Floats = NDArray[np.float64]

EARTH_KM = 6371.0
_DISTORTION = 30.0
"""A step that is drawn so many times as long as it is goes round the back of the Earth."""
_LONGEST_DEG = 1.0
"""Longer steps get points in between: a parallel is no straight line in most projections."""


class Place:
    """Places on the Earth for the pixels of one grid."""

    def __init__(self, grid: Grid) -> None:
        """Look at where it lies.

        Raises:
            MissingExtraError: pyproj is not installed.
        """
        with reads_with("frames"):
            from pyproj import CRS, Transformer
        assert grid.crs_wkt, "a grid with a place on the Earth"
        crs = CRS.from_wkt(grid.crs_wkt)
        # The same ellipsoid, so that no datum shift enters; of a rotated pole, what was rotated.
        base = crs.source_crs if crs.is_geographic and crs.is_derived else crs.geodetic_crs
        self._onto = Transformer.from_crs(base, crs, always_xy=True)
        self._back = Transformer.from_crs(crs, base, always_xy=True)
        self.grid = grid
        middle = (grid.width / 2, grid.height / 2)
        self.pixel_km = self._pixel_km(*middle)
        """Width of a pixel in the middle of the frame."""

    def pixels(self, points: Floats) -> Floats:
        """`(N, 2)` longitudes and latitudes as x and y; NaN where they have no place."""
        left, top, step_x, step_y = self.grid.affine
        x, y = (np.asarray(v) for v in self._onto.transform(points[:, 0], points[:, 1]))
        if self.grid.geographic:  # the turn of the Earth that the frame is in
            middle = left + self.grid.width * step_x / 2
            x = middle + (x - middle + 180.0) % 360.0 - 180.0
        placed = np.stack([(x - left) / step_x, (y - top) / step_y], axis=1)
        placed[~(np.abs(placed) < 1e7).all(axis=1)] = np.nan
        return placed

    def degrees(self, places: Floats) -> Floats:
        """`(N, 2)` x and y as longitudes (-180 to 180) and latitudes; NaN beyond the Earth."""
        left, top, step_x, step_y = self.grid.affine
        x, y = left + places[:, 0] * step_x, top + places[:, 1] * step_y
        found = np.stack(self._back.transform(x, y), axis=1).astype(np.float64)
        found[~(np.abs(found) <= [1e4, 90.0]).all(axis=1)] = np.nan
        found[:, 0] = (found[:, 0] + 180.0) % 360.0 - 180.0
        return found

    def lines(self, given: Lines, margin: float = 0.0) -> list[Floats]:
        """Lines in pixels, `(N, 2)` each: the parts that touch the frame, or come as near.

        Args:
            given: in degrees.
            margin: pixels around the frame.
        """
        dense = _dense(given)
        if not len(dense.points):
            return []
        places = self.pixels(dense.points)
        start, end = places[:-1], places[1:]
        size = np.array([self.grid.width, self.grid.height], np.float64)
        with np.errstate(invalid="ignore"):
            near = (np.maximum(start, end) >= -margin) & (np.minimum(start, end) <= size + margin)
            drawn_km = np.hypot(*(end - start).T) * self.pixel_km
            real_km = distance_km(dense.points[:-1], dense.points[1:])
            honest = drawn_km <= _DISTORTION * (real_km + self.pixel_km)
        kept = near.all(axis=1) & honest & (dense.line[:-1] == dense.line[1:])
        return [places[first : last + 1] for first, last in _runs(kept)]

    def rings(self, given: Lines) -> list[Floats] | None:
        """Whole rings in pixels, `(N, 2)` each; None where a part has no place, or they lie apart.

        Args:
            given: in degrees.
        """
        dense = _dense(given)
        places = self.pixels(dense.points)
        size = np.array([self.grid.width, self.grid.height], np.float64)
        step = np.abs(np.diff(places, axis=0))[dense.line[:-1] == dense.line[1:]]
        if not np.isfinite(places).all() or (len(step) and (step > 2 * size).any()):
            return None
        if (places.max(axis=0) < 0).any() or (places.min(axis=0) > size).any():
            return []
        return [places[dense.line == n] for n in np.unique(dense.line)]

    def _pixel_km(self, x: float, y: float) -> float:
        """Width of a pixel on the Earth; where the middle is beyond it, as the grid says."""
        ends = self.degrees(np.array([[x - 0.5, y], [x + 0.5, y]]))
        km = float(distance_km(ends[:1], ends[1:])[0])
        if np.isfinite(km) and km > 0:
            return km
        return self.grid.affine[2] * (111.2 if self.grid.geographic else 1e-3)


@lru_cache(maxsize=16)
def place_of(grid: Grid) -> Place:
    """The place of a grid; see `Place`."""
    return Place(grid)


def distance_km(one: Floats, other: Floats) -> Floats:
    """Between `(N, 2)` longitudes and latitudes, on a sphere."""
    (lon, lat), (to_lon, to_lat) = np.radians(one).T, np.radians(other).T
    half = np.sin((to_lat - lat) / 2) ** 2
    half = half + np.cos(lat) * np.cos(to_lat) * np.sin((to_lon - lon) / 2) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1))), np.float64)


def _dense(given: Lines) -> Lines:
    """The same lines with points in their longer steps, and no step around the Earth."""
    points = given.points
    if len(points) < 2:
        return given
    step = np.diff(points, axis=0)
    step[:, 0] = (step[:, 0] + 180.0) % 360.0 - 180.0
    same = given.line[1:] == given.line[:-1]
    count = np.where(same, np.ceil(np.abs(step).max(axis=1) / _LONGEST_DEG), 1)
    count = np.append(count.clip(1), 1).astype(np.int64)
    at = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    share = at / np.repeat(count, count)
    steps = np.append(step, [[0.0, 0.0]], axis=0)
    dense = np.repeat(points, count, axis=0) + share[:, None] * np.repeat(steps, count, axis=0)
    return Lines(dense, np.repeat(given.line, count))


def _runs(kept: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The first and the last point of each run of steps that are kept."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
