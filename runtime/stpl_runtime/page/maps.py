"""The map of a stream's grid for the page, as JSON in the frame's own pixels."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from stpl_core.errors import MissingExtraError
from stpl_core.grid import Grid
from stpl_core.maps.lines import map_lines
from stpl_core.maps.overlay import Shape, placed
from stpl_core.maps.placing import Floats, place_of

DETAILS = ("overview", "detail")
"""Of the whole frame on a screen, and of what lies on a few of its pixels."""
_SCREEN = 1200
"""Pixels along the longer side of an overview."""
_FINE = 0.15
"""Pixels that a line of the detail may be off, where the shipped map is so good."""
_KEPT = 8


class Maps:
    """The maps of the grids that were asked for."""

    def __init__(self, overlays: Sequence[Shape] = ()) -> None:
        """Args: overlays: a user's own shapes over every map."""
        self._overlays = tuple(overlays)
        self._grids: OrderedDict[str, Grid] = OrderedDict()
        self._made: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def facts(self, grid: Grid | None, root: str) -> dict[str, str]:
        """`url` of a grid's map, to which a word of `DETAILS` is added; or `why` there is none.

        Args:
            grid: of the frames; None where it is not known.
            root: under which the maps' addresses are, with a slash at its end.
        """
        if grid is None or not grid.crs_wkt:
            return {"why": "No map: the frames do not say where on the Earth they lie."}
        try:
            place_of(grid)
        except MissingExtraError as error:
            return {"why": f"No map: {error}."}
        key = hashlib.sha256(repr(grid).encode()).hexdigest()[:12]
        with self._lock:
            self._grids[key] = grid
            while len(self._grids) > _KEPT:
                self._grids.popitem(last=False)
        return {"url": f"{root}{key}/"}

    def json(self, key: str, detail: str) -> bytes | None:
        """A map that `facts` named; None where it is not kept any more."""
        with self._lock:
            grid, known = self._grids.get(key), self._made.get((key, detail))
        if known is not None or grid is None or detail not in DETAILS:
            return known
        made = json.dumps(self._document(grid, detail), separators=(",", ":")).encode()
        with self._lock:
            self._made[key, detail] = made
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return made

    def _document(self, grid: Grid, detail: str) -> dict[str, Any]:
        is_overview = detail == "overview"
        off_by = 0.5 * max(grid.width, grid.height) / _SCREEN if is_overview else _FINE
        found, place, digits = map_lines(grid, off_by), place_of(grid), 1 if is_overview else 2
        document: dict[str, Any] = {
            "layers": {
                layer: [_flat(line, digits) for line in lines]
                for layer, lines in found.layers.items()
            },
        }
        if is_overview:
            document |= {
                "pixel_km": place.pixel_km,
                "cities": [
                    [city.name, round(city.x, 2), round(city.y, 2)] for city in found.cities
                ],
                "meridians": [[text, _flat(line, 2)] for text, line in found.meridians],
                "parallels": [[text, _flat(line, 2)] for text, line in found.parallels],
                "overlay": [
                    {"kind": shape.kind, "name": shape.name, "parts": parts}
                    for shape in self._overlays
                    if (parts := [_flat(line, 2) for line in placed(shape, place)])
                ],
            }
        return document


def _flat(line: Floats, digits: int) -> list[float]:
    """x, y, x, y, ..."""
    return [float(value) for value in line.round(digits).ravel()]
