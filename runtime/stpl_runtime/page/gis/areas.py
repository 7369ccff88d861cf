"""An area that is asked for: its outlines, and the pixels whose middles lie within."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stpl_core.maps.placing import Floats
from stpl_runtime.page.gis.drawing import MOST_PIXELS
from stpl_runtime.page.gis.ground import DEGREES, Ground
from stpl_runtime.page.gis.refusal import RefusedError, quoted

NUMBER = r"([-+]?[0-9]{1,4}(?:\.[0-9]{0,20})?(?:[eE][-+]?[0-9]{1,2})?)"
_PLACE = re.compile(rf"\s*{NUMBER}\s+{NUMBER}\s*")
_RING = r"\s*\([^()]*\)\s*"
_RINGS = rf"\s*\({_RING}(?:,{_RING})*\)\s*"
_AREA = re.compile(
    rf"\s*(?:POLYGON{_RINGS}|MULTIPOLYGON\s*\({_RINGS}(?:,{_RINGS})*\)\s*)", re.IGNORECASE
)
_INSIDE = re.compile(r"\(([^()]*)\)")
_ENDS = (slice(None, -1), slice(1, None))
_MOST_CROSSINGS = 100_000_000
"""Latitudes of pixels that the edges cross, all together: a second or two."""
_STEP_DEG = 0.5
"""An edge is straight in degrees: in the pixels of a frame, between places as near as this."""


def rings_of(coords: str) -> list[Floats]:
    """The outlines of an area, `(N, 2)` longitudes and latitudes each; its holes are among them.

    Args:
        coords: `POLYGON((5 52,6 52,6 53,5 52))` or a MULTIPOLYGON; no longer than an address may
            be, so of few points.

    Raises:
        RefusedError: it is none.
    """
    if not _AREA.fullmatch(coords):
        raise _refused(
            coords, "expected longitudes and latitudes, such as POLYGON((5 52,6 52,6 53,5 52))"
        )
    texts = [text.split(",") for text in _INSIDE.findall(coords)]
    rings = [np.array([_place(coords, text) for text in ring]) for ring in texts]  # (N, 2)
    for ring in rings:
        if len(ring) < 4 or (ring[0] != ring[-1]).any():
            raise _refused(
                coords, "expected three places or more in each ring, and the first one again"
            )
    if np.ptp(np.concatenate(rings)[:, 0]) > 360.0:
        raise _refused(coords, "expected at most 360 degrees from west to east")
    return rings


def pixels_within(rings: list[Floats], ground: Ground) -> NDArray[np.int64]:
    """Numbers of the pixels whose middles lie within, counted along the rows, rising.

    Args:
        rings: see `rings_of`. What lies within an even number of them is a hole.
        ground: of the frames.

    Raises:
        RefusedError: so many have to be looked at that it takes too long.
    """
    points = np.concatenate([_dense(ring) for ring in rings])
    left, top, right, bottom = ground.window(DEGREES, points[:, 0], points[:, 1])
    count = max(0, right - left) * max(0, bottom - top)
    if count > MOST_PIXELS**2:
        raise RefusedError(
            f"coords: an area over {count:,} pixels; expected at most {MOST_PIXELS**2:,}; "
            "/nowcast/latest?format=nc has them all",
            status=413,
        )
    if not count:
        return np.empty(0, np.int64)
    rows, columns = np.mgrid[top:bottom, left:right].reshape(2, -1)
    lon, lat = ground.centres(columns, rows)
    west, east = points[:, 0].min(), points[:, 0].max()
    middle = (west + east) / 2  # the turn of the Earth that the area is in
    lon = middle + (lon - middle + 180.0) % 360.0 - 180.0
    within = _within(rings, lon, lat)
    found: NDArray[np.int64] = (rows * ground.grid.width + columns)[within]
    return found


def _within(rings: list[Floats], lon: Floats, lat: Floats) -> NDArray[np.bool_]:
    """`(N,)`, of each place: whether a line to the east crosses the outlines an odd time."""
    order = np.argsort(lat)
    lon, lat = lon[order], lat[order]
    starts, ends = (np.concatenate([ring[part] for ring in rings]) for part in _ENDS)  # (E, 2)
    # Of the edges, none has its upper end: a line through a corner crosses one of two.
    firsts = np.searchsorted(lat, np.minimum(starts[:, 1], ends[:, 1]))
    lasts = np.searchsorted(lat, np.maximum(starts[:, 1], ends[:, 1]))
    if (lasts - firsts).sum() > _MOST_CROSSINGS:
        raise RefusedError(
            "coords: the outline goes to and fro over too many pixels; expected a simpler one",
            status=413,
        )
    odd = np.zeros(len(lat), np.bool_)
    for first, last, (x, y), (to_x, to_y) in zip(firsts, lasts, starts, ends, strict=True):
        if first < last:
            there = x + (lat[first:last] - y) * ((to_x - x) / (to_y - y))
            odd[first:last] ^= lon[first:last] < there
    found = np.empty_like(odd)
    found[order] = odd
    return found


def _dense(ring: Floats) -> Floats:
    parts = [ring[:1]]
    for start, end in pairwise(ring):
        count = max(1, int(np.ceil(np.abs(end - start).max() / _STEP_DEG)))
        parts.append(start + (np.arange(count) + 1)[:, None] / count * (end - start))
    return np.concatenate(parts)


def _place(coords: str, text: str) -> tuple[float, float]:
    found = _PLACE.fullmatch(text)
    lon, lat = (float(found[1]), float(found[2])) if found else (0.0, 91.0)
    if not (abs(lon) <= 360.0 and abs(lat) <= 90.0):
        raise _refused(coords, f"{quoted(text.strip())} is no longitude and latitude")
    return lon, lat


def _refused(coords: str, expected: str) -> RefusedError:
    return RefusedError(f"coords={quoted(coords)}: {expected}")
