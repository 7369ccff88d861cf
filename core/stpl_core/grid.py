"""Where the pixels of a frame lie."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Grid:
    """Where the pixels lie; row 0 is the top."""

    affine: tuple[float, float, float, float]
    """Left edge, top edge, pixel width (> 0), pixel height (< 0 where y points up)."""
    height: int
    width: int
    crs_wkt: str = ""
    """Coordinate reference system as WKT 2; empty: pixels are all there is."""
    geographic: bool = False
    """The coordinates are degrees of longitude and latitude."""

    @property
    def x(self) -> NDArray[np.float64]:
        """Centres of the columns, `(W,)`."""
        return _centres(self.affine[0], self.affine[2], self.width)

    @property
    def y(self) -> NDArray[np.float64]:
        """Centres of the rows, `(H,)`."""
        return _centres(self.affine[1], self.affine[3], self.height)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Outer edges: least x, least y, greatest x, greatest y."""
        left, top, width, height = self.affine
        bottom = top + self.height * height
        return left, min(top, bottom), left + self.width * width, max(top, bottom)

    def same_as(self, other: Grid) -> bool:
        """The same pixels, to a hundredth of one."""
        if (self.height, self.width, self.geographic) != (
            other.height,
            other.width,
            other.geographic,
        ):
            return False
        step_x, step_y = abs(self.affine[2]), abs(self.affine[3])
        slack = 0.01 * np.array([step_x, step_y, step_x, step_y])
        near = np.abs(np.subtract(self.corners, other.corners)) <= slack
        return bool(near.all()) and bool(self.crs_wkt) == bool(other.crs_wkt)


def _centres(edge: float, step: float, count: int) -> NDArray[np.float64]:
    return np.asarray(edge + (np.arange(count) + 0.5) * step, np.float64)


def projection_name(wkt: str) -> str:
    """The name of a reference system, or its method where it has none."""
    name, method = re.search(r'"([^"]*)"', wkt), re.search(r'METHOD\["([^"]*)"', wkt)
    if name and name[1].lower() not in ("unknown", "unnamed"):
        return name[1]
    return method[1] if method else "unnamed projection"


def pixel_grid(height: int, width: int) -> Grid:
    """A grid that is nothing but pixels: x to the right, y down, one per pixel."""
    return Grid(affine=(0.0, 0.0, 1.0, 1.0), height=height, width=width)
