"""A layer as the square tiles of web maps: XYZ in EPSG:3857, 256 pixels, y from the north."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stpl_runtime.page.gis.drawing import View, map_png
from stpl_runtime.page.gis.ground import MERCATOR, Box
from stpl_runtime.page.gis.layers import layers_of
from stpl_runtime.page.gis.refusal import RefusedError, quoted
from stpl_runtime.page.gis.wms import Nowcasts

HALF_M = math.pi * 6378137.0
"""From the middle of the world to its edge."""
PIXELS = 256
_DEEPEST = 24


def tile(
    nowcasts: Nowcasts, name: str, place: tuple[int, int, int], given: Mapping[str, str]
) -> bytes:
    """A tile as a PNG; transparent where nothing was observed.

    Args:
        nowcasts: the newest ones.
        name: of the layer.
        place: zoom, x and y.
        given: `time`, `lead` and `style`, as WMS takes them.

    Raises:
        RefusedError: there is none; its status says why.
        MissingExtraError: pyproj is not installed.
    """
    layers = layers_of(nowcasts)
    if name not in layers:
        raise RefusedError(f"no layer {quoted(name)}; there are {', '.join(layers)}", status=404)
    layer = layers[name]
    style = given.get("style", "") or next(iter(layer.styles))
    if style not in layer.styles:
        raise RefusedError(f"style={quoted(style)}: expected one of {', '.join(layer.styles)}")
    step = layer.step_at(given.get("time", ""), given.get("lead", ""))
    view = View(MERCATOR, _box(*place), PIXELS, PIXELS)
    return map_png(layer, step, style, view)


def _box(zoom: int, x: int, y: int) -> Box:
    if not (0 <= zoom <= _DEEPEST and 0 <= x < 2**zoom and 0 <= y < 2**zoom):
        raise RefusedError(f"no tile {zoom}/{x}/{y}: zoom goes to {_DEEPEST}", status=404)
    side = 2 * HALF_M / 2**zoom
    left, top = x * side - HALF_M, HALF_M - y * side
    return Box(left, top - side, left + side, top)
