"""Windows of one or several archives, cut into tiles of the model's size.

A place is a window of an archive and a tile in it. Tiles of which less than half was observed in
any frame of the window are left out; so are, for training only, those with little to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.reader import NO_DATA, States, Times
from stpl_train.data.sequences import Indices, Mask
from stpl_train.data.windows import Layout

if TYPE_CHECKING:
    from stpl_train.data.archive import ArchiveFrames

_OBSERVED = 0.5


@dataclass(frozen=True)
class Tiles:
    """Tiles of windows; each is a sequence."""

    archives: tuple[ArchiveFrames, ...]
    places: NDArray[np.int64]
    """`(count, 4)`: number of the archive, first frame of the window, top row, left column."""
    size: tuple[int, int]
    """(H, W) of a tile."""
    layout: Layout
    codec: FrameCodec

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.places)

    def batch(self, indices: Indices) -> Array:
        """Tiles `(B, T + K, C, H, W)` float32 in model units; no data is `no_data_value`."""
        return self.codec.model_from_physical(self.physical(indices))

    def masked(self, indices: Indices) -> tuple[Array, Mask]:
        """`batch` and `observed`, read once."""
        frames, states = zip(*map(self._read, self.places[indices]), strict=True)
        return self.codec.model_from_physical(np.stack(frames)), np.stack(states) != NO_DATA

    def physical(self, indices: Indices) -> Array:
        """Tiles `(B, T + K, C, H, W)` in physical units, NaN where there is no data."""
        return np.stack([self._read(place)[0] for place in self.places[indices]])

    def observed(self, indices: Indices) -> Mask:
        """`(B, T + K, H, W)`, True where a pixel was observed."""
        states = np.stack([self._read(place)[1] for place in self.places[indices]])
        return np.asarray(states != NO_DATA)

    def times(self, indices: Indices) -> Times:
        """`(B, T + K)`."""
        return np.stack(
            [
                self.archives[place[0]].dataset["time"].values[self._rows(place)]
                for place in self.places[indices]
            ]
        ).astype("datetime64[ns]")

    def _rows(self, place: NDArray[np.int64]) -> slice:
        start = int(place[1])
        return slice(start, start + self.layout.span, self.layout.every)

    def _read(self, place: NDArray[np.int64]) -> tuple[Array, States]:
        frames, states = self.archives[place[0]].read(self._rows(place))
        (height, width), (top, left) = self.size, place[2:].tolist()
        rows, columns = slice(top, top + height), slice(left, left + width)
        return frames[:, :, rows, columns], states[:, rows, columns]


def find_places(
    archives: Sequence[ArchiveFrames],
    starts: Sequence[Indices],
    size: tuple[int, int],
    layout: Layout,
    *,
    overlap: bool,
    least_echo: float,
    codec: FrameCodec,
) -> NDArray[np.int64]:
    """The places of all windows, see `Tiles.places`.

    Args:
        archives: opened.
        starts: of each archive's windows.
        size: (H, W) of a tile.
        layout: of the windows.
        overlap: neighbouring tiles share half of their width; else they lie side by side, and the
            last one of a row ends at the edge.
        least_echo: tiles in whose window fewer pixels than this share hold anything (in model
            units) are left out.
        codec: says what holds nothing.
    """
    found: list[NDArray[np.int64]] = []
    for number, (archive, first) in enumerate(zip(archives, starts, strict=True)):
        corners = _corners(archive.frame[1:], size, overlap)  # (P, 2)
        if len(first) == 0:
            continue
        low = int(first.min())
        high = int(first.max()) + layout.span
        seen, echo = _shares(archive, range(low, high), corners, size, codec)  # (n, P) twice
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
    codec: FrameCodec,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each frame and tile, the share that was observed and that holds something, `(n, P)`."""
    seen = np.empty((len(rows), len(corners)))
    echo = np.empty_like(seen)
    for n, row in enumerate(rows):
        frames, states = archive.read(slice(row, row + 1))
        holds = (codec.model_from_physical(frames[0]) > 0).any(axis=0)  # (H, W)
        observed = states[0] != NO_DATA
        seen[n] = _means(observed, corners, size)
        echo[n] = _means(holds & observed, corners, size)
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
