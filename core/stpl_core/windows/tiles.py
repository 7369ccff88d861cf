"""Where tiles of the model's size lie in the windows of one or several archives.

Tiles of which less than half was observed in any frame of the window are left out; so are, for
training only, those with little to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stpl_core.windows.frames import ArchiveFrames
from stpl_core.windows.placing import Indices, Layout

_OBSERVED = 0.5


def find_places(
    archives: Sequence[ArchiveFrames],
    starts: Sequence[Indices],
    size: tuple[int, int],
    layout: Layout,
    *,
    overlap: bool,
    least_echo: float,
) -> NDArray[np.int64]:
    """The places of all windows, see `Windows.places`.

    Args:
        archives: opened.
        starts: of each archive's windows.
        size: (H, W) of a tile.
        layout: of the windows.
        overlap: neighbouring tiles share half of their width; else they lie side by side, and the
            last one of a row ends at the edge.
        least_echo: tiles in whose window fewer pixels than this share hold anything (in model
            units) are left out.
    """
    found: list[NDArray[np.int64]] = []
    for number, (archive, first) in enumerate(zip(archives, starts, strict=True)):
        corners = _corners(archive.frame[1:], size, overlap)  # (P, 2)
        if len(first) == 0:
            continue
        low = int(first.min())
        high = int(first.max()) + layout.span
        seen, echo = _shares(archive, range(low, high), corners, size)  # (n, P) twice
        for start in first.tolist():
            rows = slice(start - low, start - low + layout.span, layout.every)
            good = (seen[rows].min(axis=0) >= _OBSERVED) & (echo[rows].mean(axis=0) >= least_echo)
            chosen = corners[good]
            head = np.broadcast_to(np.array([number, start], np.int64), (len(chosen), 2))
            found.append(np.concatenate([head, chosen], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 4), np.int64)


def _corners(whole: tuple[int, int], size: tuple[int, int], overlap: bool) -> NDArray[np.int64]:
    """Top and left of the tiles that cover a frame, `(P, 2)`."""
    axes = []
    for side, tile in zip(whole, size, strict=True):
        step = max(1, tile // 2) if overlap else tile
        axes.append(np.unique(np.append(np.arange(0, side - tile + 1, step), side - tile)))
    top, left = np.meshgrid(*axes, indexing="ij")
    return np.stack([top.ravel(), left.ravel()], axis=1).astype(np.int64)


def _shares(
    archive: ArchiveFrames,
    rows: range,
    corners: NDArray[np.int64],
    size: tuple[int, int],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each frame and tile, the share that was observed and that holds something, `(n, P)`."""
    seen = np.empty((len(rows), len(corners)))
    echo = np.empty_like(seen)
    for n, row in enumerate(rows):
        frames, observed = archive.read(slice(row, row + 1), "model")
        holds = (frames[0] > 0).any(axis=0)  # (H, W)
        seen[n] = _means(observed[0], corners, size)
        echo[n] = _means(holds & observed[0], corners, size)
    return seen, echo


def _means(
    mask: NDArray[np.bool_], corners: NDArray[np.int64], size: tuple[int, int]
) -> NDArray[np.float64]:
    """The share of True in each tile, `(P,)`, by sums over the rectangle up to each pixel."""
    sums = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    top, left = corners.T
    bottom, right = top + size[0], left + size[1]
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside / (size[0] * size[1]), np.float64)
