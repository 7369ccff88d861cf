"""Whether frames lie on a grid like the one that a model was trained on.

Motion and sizes are learnt in pixels: a model of 1 km pixels is wrong on 2 km pixels, and nothing
in its output would show it. Another place, crop or projection with pixels of the same size is fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stpl_core.errors import FrameError
from stpl_core.grid import Grid, projection_name

SLACK = 0.1
"""Pixels whose sides differ by up to so much are taken for the same."""

_DEGREE_M = 111_195.0
"""Of latitude, on a sphere of 6,371 km."""


def pixel_m(grid: Grid) -> tuple[float, float]:
    """Width and height of a pixel in metres; for degrees, in the middle of the grid."""
    _, top, width, height = grid.affine
    if not grid.geographic:
        return abs(width), abs(height)
    middle = math.radians(top + height * grid.height / 2)
    return abs(width) * _DEGREE_M * math.cos(middle), abs(height) * _DEGREE_M


def check_same_grid(
    found: Grid,
    trained: Sequence[Grid],
    where: str,
    *,
    any_grid: bool = False,
    crop: Sequence[int] | None = None,
) -> str:
    """Compare the grid of frames, as the model gets them, with those of the training.

    Args:
        found: of the frames; one that is no place on the Earth fits everything.
        trained: of the training data; empty where nothing is known.
        where: what has the frames.
        any_grid: accept pixels that differ.
        crop: of the training, which larger frames of another grid get too.

    Returns:
        A warning about what is allowed but worth knowing; mostly empty.

    Raises:
        FrameError: the pixels have another size, or are degrees where they were metres.
    """
    known = [grid for grid in trained if grid.crs_wkt]
    if not found.crs_wkt or not known:
        return ""
    cut = "" if crop is None else f"; its crop {list(crop)} is cut out of larger frames here too"
    alike = [grid for grid in known if _alike(found, grid)]
    if not alike:
        if not any_grid:
            raise FrameError(
                f"{where} has pixels of {_text(found)}",
                expected=f"{' or '.join(map(_text, known))}, as this model was trained on",
                fix="data of that pixel size, or --any-grid to accept these",
            )
        return (
            f"{where} has pixels of {_text(found)}; the model was trained on {_text(known[0])}{cut}"
        )
    if any(_same_projection(found, grid) for grid in alike):
        return ""
    here, there = _distinguished(found.crs_wkt, alike[0].crs_wkt)
    return (
        f"{where} is in another projection ({here}) than the training ({there}), with pixels of "
        f"the same size{cut}"
    )


def _distinguished(one: str, other: str) -> tuple[str, str]:
    """The names of two projections; with the first parameter that differs where they are equal."""
    names = projection_name(one), projection_name(other)
    if names[0] != names[1]:
        return names
    from pyproj import CRS

    first, second = (
        {} if crs.coordinate_operation is None
        else {param.name: param.value for param in crs.coordinate_operation.params}
        for crs in (CRS(one), CRS(other))
    )  # fmt: skip
    for name, value in first.items():
        if second.get(name) != value:
            return f"{names[0]}, {name} {value:g}", f"{names[1]}, {name} {second.get(name, 0):g}"
    shapes = [CRS(text).ellipsoid for text in (one, other)]
    words = ["another datum" if shape is None else shape.name for shape in shapes]
    if words[0] == words[1]:
        return names[0], "of another datum"
    return f"{names[0]}, {words[0]}", f"{names[1]}, {words[1]}"


def _alike(one: Grid, other: Grid) -> bool:
    if one.geographic != other.geographic:
        return False
    sides = zip(pixel_m(one), pixel_m(other), strict=True)
    return all(abs(math.log(ours / theirs)) <= math.log1p(SLACK) for ours, theirs in sides)


def _same_projection(one: Grid, other: Grid) -> bool:
    if one.crs_wkt == other.crs_wkt:
        return True
    from pyproj import CRS

    return bool(CRS(one.crs_wkt).equals(CRS(other.crs_wkt), ignore_axis_order=True))


def grid_text(grid: Grid) -> str:
    """The pixels and the projection of a grid in words."""
    return f"pixels of {_text(grid)}, {projection_name(grid.crs_wkt)}"


def _text(grid: Grid) -> str:
    width, height = (f"{side / 1000:.3g}" for side in pixel_m(grid))
    if grid.geographic:
        degrees = " x ".join(f"{abs(side):.3g}" for side in grid.affine[2:])
        return f"{degrees} degrees ({width} x {height} km)"
    return f"{width} x {height} km"
