"""A user's own map over the frames: areas, lines and points of a GeoJSON file (RFC 7946)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stpl_core.errors import UsageError
from stpl_core.maps.placing import Floats, Place
from stpl_core.maps.world import Lines

MOST_BYTES = 20 * 2**20
MOST_POINTS = 200_000

Kind = Literal["area", "line", "point"]
_KINDS: dict[str, tuple[Kind, int]] = {
    "Point": ("point", 0), "MultiPoint": ("point", 1),
    "LineString": ("line", 1), "MultiLineString": ("line", 2),
    "Polygon": ("area", 2), "MultiPolygon": ("area", 3),
}  # fmt: skip
"""Type of a geometry -> what it is, and how deep its positions lie."""
_NAMES = ("name", "title", "headline", "event", "id")
_DEEPEST = 20
"""Collections within collections."""


@dataclass(frozen=True)
class Shape:
    """An area, a line or a point with its name."""

    kind: Kind
    name: str
    """Empty where the file has none."""
    points: Lines
    """In degrees; the rings of an area."""


def read_overlay(path: Path) -> tuple[Shape, ...]:
    """The shapes of a GeoJSON file.

    Raises:
        UsageError: it is missing, too large, or no GeoJSON in longitude and latitude.
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _refused(path, f"has {size / 2**20:.0f} MB", f"at most {MOST_BYTES >> 20} MB")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise _refused(
            path, f"cannot be read: {error.strerror}", "a GeoJSON file", "check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"is no JSON: {error}", "a GeoJSON file") from error
    try:
        shapes = tuple(_shapes(document, "", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(
            path,
            f"is no GeoJSON: {error}",
            "features with longitudes from -180 to 180 and latitudes",
            f"ogr2ogr -t_srs EPSG:4326 -f GeoJSON degrees.geojson {path}",
        ) from error
    if not shapes:
        raise _refused(path, "has no shape in it", "points, lines or areas")
    if sum(len(shape.points.points) for shape in shapes) > MOST_POINTS:
        raise _refused(path, "has too many points", f"at most {MOST_POINTS:,}")
    return shapes


def placed(shape: Shape, place: Place) -> list[Floats]:
    """A shape in the pixels of a grid, `(N, 2)` of x and y each: what of it is near the frame.

    An area that is whole has its whole rings, so that it can be filled; of others the outline is
    given that touches the frame.
    """
    if shape.kind == "point":
        spots = place.pixels(shape.points.points)
        size = np.array([place.grid.width, place.grid.height])
        inside = np.logical_and(spots >= 0, spots <= size).all(axis=1)
        return [spots[n : n + 1] for n in np.flatnonzero(inside)]
    if shape.kind == "area" and (rings := place.rings(shape.points)) is not None:
        return rings
    return place.lines(shape.points)


def _refused(path: Path, found: str, expected: str, fix: str = "another file") -> UsageError:
    return UsageError(
        f"--overlay {path} {found}", expected=expected, fix=f"{fix}, or leave --overlay out"
    )


def _shapes(item: Any, name: str, depth: int) -> Iterator[Shape]:
    """Of a feature, a collection or a geometry."""
    if not isinstance(item, dict):
        raise TypeError(f"{json.dumps(item)[:40]} is no object")
    kind = item["type"]
    if depth > _DEEPEST:
        raise ValueError("collections lie too deep in one another")
    if kind == "FeatureCollection":
        for feature in item["features"]:
            yield from _shapes(feature, name, depth + 1)
    elif kind == "Feature":
        if item.get("geometry") is not None:
            yield from _shapes(item["geometry"], _name(item), depth + 1)
    elif kind == "GeometryCollection":
        for geometry in item["geometries"]:
            yield from _shapes(geometry, name, depth + 1)
    elif kind in _KINDS:
        what, levels = _KINDS[kind]
        parts = list(_parts(item["coordinates"], levels if what != "point" else levels + 1))
        if parts:
            counts = [len(part) for part in parts]
            line = np.repeat(np.arange(len(parts), dtype=np.int32), counts)
            yield Shape(what, name, Lines(np.concatenate(parts), line))
    else:
        raise ValueError(f"a geometry of type {json.dumps(kind)[:40]}")


def _name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties") or {}
    found = next((properties[key] for key in _NAMES if properties.get(key)), "")
    return str(found)[:120]


def _parts(coordinates: Any, levels: int) -> Iterator[Floats]:
    """Each list of positions, `(N, 2)`."""
    if levels > 1:
        for inner in coordinates:
            yield from _parts(inner, levels - 1)
        return
    positions = [coordinates] if levels == 0 else coordinates
    if positions and not isinstance(positions[0], list):  # a single point
        positions = [positions]
    if not positions:
        return
    part = np.array([position[:2] for position in positions], np.float64)
    if part.shape[1:] != (2,) or not (np.abs(part) <= [360.0, 90.0]).all():
        raise ValueError("positions that are no longitude and latitude")
    yield part
