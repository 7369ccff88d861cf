"""Windows of one or several archives: whole frames, or a tile of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.grid import Grid
from stpl_core.reader import Mask, Times
from stpl_core.readers.fit import Fit
from stpl_core.windows.frames import ArchiveFrames, Values
from stpl_core.windows.placing import Indices, Layout


@dataclass(frozen=True)
class Windows:
    """Contiguous frames, each window a pure function of its place."""

    archives: tuple[ArchiveFrames, ...]
    places: NDArray[np.int64]
    """`(count, 4)`: number of the archive, first frame of the window, top row, left column."""
    size: tuple[int, int]
    """(H, W) of a window."""
    layout: Layout

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.places)

    def batch(self, indices: Indices) -> Array:
        """`(B, T + K, C, H, W)` float32 in model units; no data is `no_data_value`."""
        return self.masked(indices)[0]

    def masked(self, indices: Indices) -> tuple[Array, Mask]:
        """As `batch`, and which pixels were observed, `(B, T + K, H, W)`."""
        return self.read(indices, "model")

    def read(self, indices: Indices, values: Values) -> tuple[Array, Mask]:
        """`(B, T + K, C, H, W)` in either units, and which pixels were observed."""
        read = (self._read(place, values) for place in self.places[indices])
        frames, observed = zip(*read, strict=True)
        return np.stack(frames), np.stack(observed)

    def times(self, indices: Indices) -> Times:
        """`(B, T + K)`."""
        return np.stack(
            [
                self.archives[place[0]].dataset["time"].values[self._rows(place)]
                for place in self.places[indices]
            ]
        ).astype("datetime64[ns]")

    def sequences(self, indices: Indices) -> NDArray[np.int64]:
        """Number of the sequence that each window was cut from, over all archives, `(B,)`."""
        found = [
            (number, int(self.archives[number].dataset["sequence"].values[first]))
            for number, first in self.places[indices, :2].tolist()
        ]
        numbers = {pair: n for n, pair in enumerate(sorted(set(found)))}
        return np.array([numbers[pair] for pair in found], np.int64)

    def grid(self, index: int) -> Grid:
        """Where the pixels of one window lie."""
        number, _, top, left = (int(value) for value in self.places[index])
        return Fit(crop=(top, left, *self.size)).grid(self.archives[number].grid, "")

    def _rows(self, place: NDArray[np.int64]) -> slice:
        start = int(place[1])
        return slice(start, start + self.layout.span, self.layout.every)

    def _read(self, place: NDArray[np.int64], values: Values) -> tuple[Array, Mask]:
        (height, width), (top, left) = self.size, place[2:].tolist()
        area = slice(top, top + height), slice(left, left + width)
        return self.archives[int(place[0])].read(self._rows(place), values, area)


def whole_places(starts: Indices, archive: int = 0) -> NDArray[np.int64]:
    """`Windows.places` of whole frames of the archive of this number."""
    places = np.zeros((len(starts), 4), np.int64)
    places[:, 0], places[:, 1] = archive, starts
    return places
