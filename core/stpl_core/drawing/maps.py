"""The map over a drawn frame: lines, graticule, cities and a scale bar, for any picture's size."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.drawing.pictures import font, text_width
from stpl_core.errors import MissingExtraError
from stpl_core.grid import Grid
from stpl_core.maps.lines import MapLines, map_lines

if TYPE_CHECKING:
    from PIL.Image import Image

Pair = NDArray[np.float64]
Rgba = tuple[int, int, int, int]

_INK: Rgba = (30, 30, 34, 255)
_HALO: Rgba = (255, 255, 255, 150)
"""Around what is dark, so that it is seen on dark ground too."""
_LINES: dict[str, Rgba] = {
    "rivers": (52, 104, 150, 255),
    "lakes": (52, 104, 150, 255),
    "borders": (110, 40, 90, 255),
    "coasts": (30, 30, 34, 255),
}
_GRATICULE: Rgba = (96, 96, 104, 130)
_WITH_DEGREES, _WITH_CITIES = 140, 200
"""A picture with a shorter side than this has no graticule and scale bar, or no cities."""
_TEXT = 12
"""Height of a letter."""
_EDGE = 3
_NO_MARKS = str.maketrans("øØłŁđĐ", "oOlLdD")
"""Letters that are no letter with a mark."""


def with_map(image: Image, grid: Grid | None, shrunk: float = 1.0) -> Image:
    """A frame's picture with the map over it; as it is where its grid has no place on the Earth.

    Args:
        image: the whole frame in any size.
        grid: of the frame.
        shrunk: so many times smaller it will be shown: lines and letters are as much larger.
    """
    if grid is None or not grid.crs_wkt:
        return image
    over = _map_picture(grid, *image.size, shrunk)
    if over is None:
        return image
    drawn = image.convert("RGBA")
    drawn.alpha_composite(over)
    return drawn.convert("RGB")


@lru_cache(maxsize=8)
def _map_picture(grid: Grid, width: int, height: int, shrunk: float) -> Image | None:
    """The map alone, transparent elsewhere; None without pyproj."""
    from PIL import Image, ImageDraw

    size = np.array([width / grid.width, height / grid.height])
    try:
        found = map_lines(grid, off_by=float(0.5 * shrunk / size.max()))
    except MissingExtraError:
        return None
    over = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw, thick = ImageDraw.Draw(over), max(1, round(shrunk))
    side = min(width, height) / shrunk
    if side >= _WITH_DEGREES:
        for _, line in (*found.meridians, *found.parallels):
            draw.line(_flat(line * size), fill=_GRATICULE, width=thick)
    for layer, colour in _LINES.items():
        for line in found.layers[layer]:
            draw.line(_flat(line * size), fill=_HALO, width=thick + 2)
        for line in found.layers[layer]:
            draw.line(_flat(line * size), fill=colour, width=thick)
    if side >= _WITH_DEGREES:
        pen = _Pen(over, shrunk)
        _scale_bar(pen, found, size)
        _degrees(pen, found, size)
        if side >= _WITH_CITIES:
            _cities(pen, found, size)
    return over


def _flat(line: Pair) -> list[float]:
    return [float(value) for value in line.ravel()]


class _Pen:
    """Writes on a picture where nothing is written yet."""

    def __init__(self, over: Image, shrunk: float) -> None:
        from PIL import ImageDraw

        self.size, self.letter = over.size, round(_TEXT * shrunk)
        self.edge = round(_EDGE * shrunk)
        self.draw = ImageDraw.Draw(over)
        self._taken: list[tuple[float, float, float, float]] = []

    def width(self, text: str) -> int:
        """Of a text, in pixels."""
        return text_width(text, self.letter)

    def take(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether a box is free and inside; then it is taken."""
        box = (x, y, x + width, y + height)
        inside = x >= 0 and y >= 0 and box[2] <= self.size[0] and box[3] <= self.size[1]
        free = inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in self._taken
        )
        if free:
            self._taken.append(box)
        return free

    def write(self, text: str, x: float, y: float) -> bool:
        """Write, where there is room; y is the upper end."""
        if not self.take(x, y, self.width(text), self.letter + 2):
            return False
        self.draw.text(
            (x, y), text, fill=_INK, font=font(self.letter), stroke_width=1, stroke_fill=_HALO
        )
        return True


def _scale_bar(pen: _Pen, found: MapLines, size: Pair) -> None:
    """In the lower right corner."""
    (width, height), edge = pen.size, pen.edge
    text, long = f"{found.bar_km:g} km", found.bar * float(size[0])
    box = max(long, pen.width(text)) + 2 * edge
    x, y = width - box - edge, height - pen.letter - 6 * edge
    if not pen.take(x, y, box, height - y):
        return
    pen.draw.rectangle((x, y, width - edge, height - edge), fill=(255, 255, 255, 190))
    pen.draw.text((x + edge, y), text, fill=_INK, font=font(pen.letter))
    bottom = height - 2 * edge
    pen.draw.line((x + edge, bottom, x + edge + long, bottom), fill=_INK, width=2)


def _degrees(pen: _Pen, found: MapLines, size: Pair) -> None:
    """Meridians' names at the lower edge, those of parallels at the left one."""
    width, height = pen.size
    for text, line in found.meridians:
        x = _at_edge(line * size, 1, height, width)
        if x is not None:
            pen.write(text, x - pen.width(text) / 2, height - pen.letter - 2 * pen.edge)
    for text, line in found.parallels:
        y = _at_edge(line * size, 0, 0, height)
        if y is not None:
            pen.write(text, pen.edge, y - pen.letter / 2 - 1)


def _cities(pen: _Pen, found: MapLines, size: Pair) -> None:
    """A dot and a name each, the larger ones first."""
    for city in found.cities:
        x, y = np.array([city.x, city.y]) * size
        if pen.write(plain_letters(city.name), x + 4, y - pen.letter / 2 - 2):
            pen.draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_INK, outline=_HALO)


def plain_letters(text: str) -> str:
    """A name in the letters that Pillow's own font has: `Kobenhavn`."""
    parts = unicodedata.normalize("NFKD", text.translate(_NO_MARKS))
    return parts.encode("ascii", "ignore").decode()


def _at_edge(line: Pair, axis: int, edge: float, most: float) -> float | None:
    """Where a line meets an edge of the picture; None where it does not.

    Args:
        line: `(N, 2)`, x and y.
        axis: 0 for a left or right edge, 1 for an upper or lower one.
        edge: the edge's x or y.
        most: the edge runs from 0 to here.
    """
    side = line[:, axis] - edge
    crossings = np.flatnonzero(side[:-1] * side[1:] <= 0)
    if not len(crossings):
        return None
    at = int(crossings[0])
    share = side[at] / ((side[at] - side[at + 1]) or 1.0)
    along = float(line[at, 1 - axis] + share * (line[at + 1, 1 - axis] - line[at, 1 - axis]))
    return along if 0 <= along <= most else None
