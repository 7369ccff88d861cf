"""Nowcasts on grids of any projection, with one pixel that is brighter than the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pyproj

from stpl_core.grid import Grid
from stpl_runtime.chances import Chances
from stpl_runtime.nowcast import Nowcast
from tests.runtime.conftest import CADENCE_S, START

HEIGHT, WIDTH = 20, 30
ROW, COLUMN = 6, 21
"""Of the bright pixel."""
BRIGHT, RAIN, DRY = 60.0, 3.0, 0.0
UNSEEN = 3
"""Columns at the left that were not observed."""
K, T = 3, 4

PLACES: dict[str, tuple[str, float, float, float]] = {
    "longitude and latitude": ("OGC:CRS84", 5.0, 52.0, 0.05),
    "polar stereographic, as in Finland": (
        "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=25 +ellps=WGS84", 25.5, 62.0, 1000.0),
    "polar stereographic, as of KNMI": (
        "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378140 +b=6356750", 5.0, 52.0, 1000.0),
    "azimuthal equal-area": ("+proj=laea +lat_0=55 +lon_0=10 +ellps=WGS84", 3.0, 50.0, 2000.0),
    "Lambert conformal": (
        "+proj=lcc +lat_1=38.5 +lat_0=38.5 +lon_0=262.5 +R=6371229", -97.0, 40.0, 3000.0),
    "rotated pole": (
        "+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +o_lon_p=0 +lon_0=18 +R=6371229 +type=crs",
        10.0, 55.0, 0.02),
    "of its own, north first": ("EPSG:3035", 10.0, 52.0, 1000.0),
    "of its own, east first": ("EPSG:3067", 25.0, 61.0, 1000.0),
    "degrees east of 180": ("OGC:CRS84", 177.0, -38.0, 0.05),
    "about the pole": (
        "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +R=6370040", 10.0, 89.95, 1000.0),
}  # fmt: skip
"""Name -> projection, longitude and latitude of the middle, side of a pixel."""


def grid_of(name: str) -> Grid:
    definition, lon, lat, side = PLACES[name]
    crs = pyproj.CRS(definition)
    onto = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    if crs.is_geographic and crs.is_derived:
        onto = pyproj.Transformer.from_crs(crs.source_crs, crs, always_xy=True)
    x, y = onto.transform(lon, lat)
    affine = (x - side * WIDTH / 2, y + side * HEIGHT / 2, side, -side)
    return Grid(affine, HEIGHT, WIDTH, crs.to_wkt(), bool(crs.is_geographic))


def nowcast_on(grid: Grid | None, *, later: int = 0, **changes: Any) -> Nowcast:
    """Light rain with one strong pixel, nothing seen at the left, dry at the right.

    Args:
        grid: of its frames.
        later: slots after the first one.
        changes: of the nowcast.
    """
    frames = np.full((K, 1, HEIGHT, WIDTH), RAIN, np.float32)
    frames += np.arange(K, dtype=np.float32)[:, None, None, None]
    frames[..., -2:] = DRY
    frames[:, :, ROW, COLUMN] = BRIGHT
    context = np.full((T, 1, HEIGHT, WIDTH), RAIN, np.float32)
    seen = np.ones((HEIGHT, WIDTH), bool)
    seen[:, :UNSEEN] = False
    issued = START + timedelta(seconds=CADENCE_S * later)
    step = timedelta(seconds=CADENCE_S)
    given: dict[str, Any] = {
        "frames": frames,
        "context": context,
        "units": "mm h-1",
        "quantity": "rain rate",
        "low": 0.0,
        "high": 100.0,
        "issue_time": issued,
        "cadence_s": CADENCE_S,
        "context_times": tuple(issued - step * n for n in range(T - 1, -1, -1)),
        "grid": grid,
        "observed": seen,
        "context_observed": np.broadcast_to(seen, (T, HEIGHT, WIDTH)),
        "latency_ms": 12.5,
        "standard_name": "rainfall_rate",
    }
    return Nowcast(**{**given, **changes})


def with_chances(nowcast: Nowcast) -> Nowcast:
    """With the chances of two thresholds."""
    values = np.zeros((K, 2, 1, HEIGHT, WIDTH), np.float32)
    values[:, 0] = 0.85
    values[:, 1, 0, ROW, COLUMN] = 0.3
    chances = Chances((0.5, 5.0), values)
    return Nowcast(**{**vars(nowcast), "chances": chances})


def off_by(grid: Grid, system: str, x: float, y: float) -> float:
    """Pixels from the middle of the bright one to a place, by PROJ alone.

    Args:
        grid: of the frames.
        system: of the place, such as EPSG:4326.
        x: to the east or right.
        y: to the north or up.
    """
    name = "OGC:CRS84" if system == "CRS:84" else system
    onto = pyproj.Transformer.from_crs(name, grid.crs_wkt, always_xy=True)
    east, north = onto.transform(x, y)
    if grid.geographic:
        east += 360.0 * round((grid.x[COLUMN] - east) / 360.0)
    left, top, step_x, step_y = grid.affine
    column, row = (east - left) / step_x, (north - top) / step_y
    return float(max(abs(column - COLUMN - 0.5), abs(row - ROW - 0.5)))
