"""Where the pixels of a grid lie in the reference systems that maps are asked in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stpl_core.grid import Grid
from stpl_core.maps.placing import Floats
from stpl_core.readers.libraries import reads_with

if TYPE_CHECKING:
    from pyproj import CRS, Transformer

DEGREES, MERCATOR = "CRS:84", "EPSG:3857"
_SAMPLES = 129
"""Places along each side of a frame by which its box is found."""
_MERCATOR_END = 85.0511287798
"""Web Mercator is a square up to this latitude."""
_WHOLE_TURN = 354.0
"""Degrees: what goes so far around goes all around."""


class Box(NamedTuple):
    """Edges; x to the east or right, y to the north or up, whatever the order of the axes."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True)
class System:
    """A reference system by its name in requests."""

    name: str
    north_first: bool
    """Its first axis points north: WMS 1.3.0 gives boxes in the order of the axes."""

    def in_order(self, box: Box) -> tuple[float, float, float, float]:
        """The box as WMS 1.3.0 writes it."""
        left, bottom, right, top = box
        return (bottom, left, top, right) if self.north_first else (left, bottom, right, top)


class Ground:
    """The pixels of one grid, by places in other systems."""

    def __init__(self, grid: Grid) -> None:
        """Look at where it lies.

        Raises:
            MissingExtraError: pyproj is not installed.
        """
        with reads_with("frames"):
            from pyproj import CRS, Transformer
        assert grid.crs_wkt, "a grid with a place on the Earth"
        self.grid = grid
        crs = CRS.from_wkt(grid.crs_wkt)
        own = _own_system(crs)
        known = [System(DEGREES, False), System("EPSG:4326", True), System(MERCATOR, False)]
        self.systems = {one.name: one for one in [*known, *([own] if own else [])]}
        """Name -> system; the grid's own one only where it has an EPSG code."""
        self._onto: dict[str, Transformer] = {
            name: Transformer.from_crs(_definition(name), crs, always_xy=True)
            for name in self.systems
        }
        self._to_mercator = Transformer.from_crs("OGC:CRS84", MERCATOR, always_xy=True)
        self._own = own
        self.degrees = self._span()
        """West, south, east, north of the frame; all around where it lies across 180 degrees."""

    def pixels(self, system: str, x: Floats, y: Floats) -> NDArray[np.int64]:
        """Numbers of the pixels at places, counted along the rows; -1 beside the frame.

        Args:
            system: a key of `systems`.
            x: to the east or right, `(N,)`.
            y: to the north or up, `(N,)`.
        """
        left, top, step_x, step_y = self.grid.affine
        with np.errstate(invalid="ignore", over="ignore"):
            east, north = self._in_frame(system, x, y)
            column, row = np.floor((east - left) / step_x), np.floor((north - top) / step_y)
            inside = (column >= 0) & (column < self.grid.width)
            inside &= (row >= 0) & (row < self.grid.height)
            return np.where(inside, row * self.grid.width + column, -1.0).astype(np.int64)

    def pixel(self, system: str, x: float, y: float) -> tuple[int, int] | None:
        """Column and row of the pixel at a place; None beside the frame."""
        number = int(self.pixels(system, np.array([x]), np.array([y]))[0])
        return None if number < 0 else (number % self.grid.width, number // self.grid.width)

    def window(self, system: str, x: Floats, y: Floats) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the pixels that hold all places; the last two beyond.

        With a pixel around them, and no more than the frame; the frame, where one has no place.
        """
        left, top, step_x, step_y = self.grid.affine
        height, width = self.grid.height, self.grid.width
        east, north = self._in_frame(system, x, y)
        columns, rows = (east - left) / step_x, (north - top) / step_y
        if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
            return 0, 0, width, height
        ends = [
            int(np.clip(math.floor(end), -1, most + 1))
            for end, most in (
                (columns.min() - 1, width), (rows.min() - 1, height),
                (columns.max() + 2, width), (rows.max() + 2, height),
            )
        ]  # fmt: skip
        return max(0, ends[0]), max(0, ends[1]), min(width, ends[2]), min(height, ends[3])

    def centre(self, column: int, row: int) -> tuple[float, float]:
        """Longitude and latitude of the middle of a pixel."""
        lon, lat = self.centres(np.array([column]), np.array([row]))
        return float(lon[0]), float(lat[0])

    def centres(self, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Longitudes (-180 to 180) and latitudes of the middles of pixels, `(N,)` each."""
        lon, lat = self._onto[DEGREES].transform(
            np.asarray(self.grid.x)[columns], np.asarray(self.grid.y)[rows], direction="INVERSE"
        )
        return (np.asarray(lon) + 180.0) % 360.0 - 180.0, np.asarray(lat)

    def box(self, system: str) -> Box:
        """The least box in a system that holds the frame."""
        west, south, east, north = self.degrees
        if self._own is not None and system == self._own.name:
            return Box(*self.grid.corners)
        if system != MERCATOR:
            return self.degrees
        latitudes = np.clip([south, north], -_MERCATOR_END, _MERCATOR_END)
        x, y = self._to_mercator.transform([west, east], latitudes)
        return Box(float(x[0]), float(y[0]), float(x[1]), float(y[1]))

    def _in_frame(self, system: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Places in the system of the frame itself."""
        with np.errstate(invalid="ignore", over="ignore"):
            east, north = (np.asarray(v) for v in self._onto[system].transform(x, y))
            if self.grid.geographic:  # the turn of the Earth that the frame is in
                left, _, step_x, _ = self.grid.affine
                middle = left + self.grid.width * step_x / 2
                east = middle + (east - middle + 180.0) % 360.0 - 180.0
        return east, north

    def _span(self) -> Box:
        left, bottom, right, top = self.grid.corners
        x, y = np.meshgrid(np.linspace(left, right, _SAMPLES), np.linspace(bottom, top, _SAMPLES))
        lon, lat = (
            np.asarray(v)
            for v in self._onto[DEGREES].transform(x.ravel(), y.ravel(), direction="INVERSE")
        )
        known = np.isfinite(lon) & (np.abs(lat) <= 90.0)
        if not known.any():
            return Box(-180.0, -90.0, 180.0, 90.0)
        around, lat = np.sort((lon[known] + 180.0) % 360.0 - 180.0), lat[known]
        south, north = float(lat.min()), float(lat.max())
        poles = self.pixels(DEGREES, np.zeros(2), np.array([89.999, -89.999])) >= 0
        south, north = (-90.0 if poles[1] else south), (90.0 if poles[0] else north)
        gaps = np.diff(np.append(around, around[0] + 360.0))
        widest = int(gaps.argmax())
        west = float(around[(widest + 1) % len(around)])
        east = float(around[widest]) + (360.0 if around[widest] < west else 0.0)
        if poles.any() or gaps[widest] < 360.0 - _WHOLE_TURN or east > 180.0:
            west, east = -180.0, 180.0
        return Box(west, south, east, north)


@lru_cache(maxsize=16)
def ground_of(grid: Grid) -> Ground:
    """The ground of a grid; see `Ground`."""
    return Ground(grid)


def _definition(name: str) -> str:
    return "OGC:CRS84" if name == DEGREES else name


def _own_system(crs: CRS) -> System | None:
    """A grid's own system, where EPSG has exactly that one."""
    from pyproj import CRS

    code = crs.to_epsg()
    if code is None or code in (4326, 3857):
        return None
    registered = CRS.from_epsg(code)
    if not registered.equals(crs, ignore_axis_order=True):
        return None
    axes = [axis.direction.lower() for axis in registered.axis_info[:2]]
    return System(f"EPSG:{code}", axes == ["north", "east"])
