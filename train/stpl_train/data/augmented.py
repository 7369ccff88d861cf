"""Windows of an archive drawn anew for each place: turned, zoomed, sped up, brightened.

A few hours of one kind of weather hold few speeds and sizes. A field looks as real at half of its
size or mirrored, and with every second frame left out it moves twice as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.reader import Mask
from stpl_core.windows.cut import Windows
from stpl_core.windows.frames import ArchiveFrames
from stpl_core.windows.placing import Indices
from stpl_train.randomness import Stream, uniforms
from stpl_train.recipe import AugmentSection

Value = TypeVar("Value", bound=np.generic)

_TRIES = 16
"""Candidates of one draw, at most."""
_NUMBERS = 8
_SEEN = 0.99
"""Share of what a zoomed pixel is made of that must have been observed."""
"""Random numbers of one candidate."""


@dataclass(frozen=True)
class Variant:
    """What is done to a window, drawn at random."""

    place: int
    """Number of the window."""
    down: float
    right: float
    """Where it lies beside its place, -0.25 to 0.25 of its side."""
    zoom: float
    every: int
    turn: int
    """0 to 7: bits for rows reversed, columns reversed, rows and columns swapped."""
    brighter: float
    """Added to what is there, model units."""


@dataclass(frozen=True)
class Augmented:
    """Endlessly many sequences, each a pure function of the seed and its number."""

    windows: Windows
    """Of the training part, which take every frame."""
    codec: FrameCodec
    settings: AugmentSection
    seed: int

    @property
    def count(self) -> None:
        """They never repeat."""

    def batch(self, indices: Indices) -> Array:
        """See `stpl_train.data.sequences.Sequences`."""
        return self.masked(indices)[0]

    def masked(self, indices: Indices) -> tuple[Array, Mask]:
        """See `stpl_train.data.sequences.MaskedSequences`."""
        frames, observed = zip(*(self._drawn(int(index)) for index in indices), strict=True)
        return np.stack(frames), np.stack(observed)

    def variant(self, index: int, candidate: int) -> Variant:
        """What sequence number `index` is, at one of its tries."""
        numbers = uniforms(self.seed, Stream.AUGMENT, index * _TRIES + candidate, _NUMBERS)
        place, down, right, zoomed, zoom, every, turn, bright = numbers.tolist()
        settings = self.settings
        low, high = np.log(settings.zoom)
        swaps = 8 if self.windows.size[0] == self.windows.size[1] else 4
        return Variant(
            place=self._place(place),
            down=(down - 0.5) / 2,
            right=(right - 0.5) / 2,
            zoom=float(np.exp(low + (high - low) * zoom)) if zoomed < settings.zoomed else 1.0,
            every=settings.every[int(every * len(settings.every))],
            turn=int(turn * swaps) if settings.turns else 0,
            brighter=max(0.0, abs(4 * bright - 2) - 1) * np.sign(bright - 0.5) * settings.brighter,
        )

    def _place(self, share: float) -> int:
        """The window at a share of all, 0 to 1; archives take what their weights give them."""
        edges, starts, counts = self._shares
        archive = int(np.searchsorted(edges, share, side="right")) - 1
        within = (share - edges[archive]) / (edges[archive + 1] - edges[archive])
        return int(starts[archive] + min(int(within * counts[archive]), counts[archive] - 1))

    @cached_property
    def _shares(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Of each archive that has windows: edges of its share, its first window, how many."""
        numbers, starts, counts = np.unique(
            self.windows.places[:, 0], return_index=True, return_counts=True
        )
        given = self.settings.weights
        weights = counts if given is None else np.asarray(given)[numbers]
        edges = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
        edges[-1] = np.nextafter(1.0, 2.0)
        return edges, starts, counts

    def _drawn(self, index: int) -> tuple[Array, Mask]:
        """The candidate that has most of the greatest values."""
        variants = [self.variant(index, n) for n in range(self.settings.candidates)]
        cuts = [self._cut(variant) for variant in variants]
        shares = [self._heavy_share(frames) for frames, _ in cuts]
        best = int(np.argmax(shares))
        return self._changed(*cuts[best], variants[best])

    def _heavy_share(self, frames: Array) -> float:
        """Share of heavy values, by every fourth pixel of every fourth frame."""
        return float((frames[::4, :, ::4, ::4] >= self.settings.heavy).mean())

    def _cut(self, variant: Variant) -> tuple[Array, Mask]:
        """The frames that the archive has of a variant, `(n, C, h, w)`, n up to T + K."""
        number, start, top, left = self.windows.places[variant.place].tolist()
        archive: ArchiveFrames = self.windows.archives[number]
        size = self.windows.size
        whole = archive.frame[1:]
        zoom = max(variant.zoom, *(side / most for side, most in zip(size, whole, strict=True)))
        area = [min(round(side / zoom), most) for side, most in zip(size, whole, strict=True)]
        corner = [
            _held(at + (side - part) / 2 + beside * side, most - part)
            for at, side, beside, part, most in zip(
                (top, left), size, (variant.down, variant.right), area, whole, strict=True
            )
        ]
        span = (self.windows.layout.length - 1) * variant.every + 1
        last = start + min(span, self._reach[number, start])
        down, right = (slice(at, at + part) for at, part in zip(corner, area, strict=True))
        return archive.read(slice(start, last, variant.every), "model", (down, right))

    def _changed(self, frames: Array, observed: Mask, variant: Variant) -> tuple[Array, Mask]:
        """Zoomed, brightened, turned and filled up to T + K."""
        frames, observed = _zoomed(frames, observed, self.windows.size, self._unseen)
        frames = self._brightened(frames, variant.brighter)
        frames, observed = _turned(frames, variant.turn), _turned(observed, variant.turn)
        length = self.windows.layout.length
        return _filled(frames, length, self._unseen), _filled(observed, length, 0)

    def _brightened(self, frames: Array, by: float) -> Array:
        """Add to what is there; what falls below the least that a codec can have is nothing."""
        made = np.where(frames > 0, frames + np.float32(by), np.float32(0)).clip(0, 1)
        made = np.where(made < self._faintest, np.float32(0), made)
        return np.where(frames < 0, frames, made)  # no data, marked

    @cached_property
    def _faintest(self) -> np.float32:
        """The least value above nothing, model units."""
        if self.codec.kind != "db" or self.codec.conversion != "none":
            return np.float32(0)
        least = self.codec.model_from_physical(np.asarray([self.codec.threshold], np.float32))
        return np.float32(least[0] - 1e-4)

    @cached_property
    def _unseen(self) -> float:
        """What the model is given where nothing was observed."""
        return float(self.codec.model_from_physical(np.asarray([np.nan], np.float32))[0])

    @cached_property
    def _reach(self) -> dict[tuple[int, int], int]:
        """Archive and first frame of a window -> contiguous frames of the part from there on."""
        found: dict[tuple[int, int], int] = {}
        span = self.windows.layout.span
        starts = np.unique(self.windows.places[:, :2], axis=0)
        for number, start in starts[::-1].tolist():
            after = found.get((number, start + 1))
            found[number, start] = span if after is None else after + 1
        return found


def _held(corner: float, most: int) -> int:
    return int(min(max(round(corner), 0), most))


def _zoomed(
    frames: Array, observed: Mask, size: tuple[int, int], unseen: float
) -> tuple[Array, Mask]:
    """Bring `(n, C, h, w)` and `(n, h, w)` to `size`: means where that is smaller."""
    if frames.shape[2:] == size:
        return frames, observed
    both = np.concatenate([frames.clip(min=0), observed[:, None]], axis=1, dtype=np.float32)
    made = F.interpolate(torch.from_numpy(both), size, mode="bilinear", antialias=True).numpy()
    seen = made[:, -1] > _SEEN
    return np.where(seen[:, None], made[:, :-1], np.float32(unseen)), seen


def _turned(values: NDArray[Value], turn: int) -> NDArray[Value]:
    """Reverse and swap the last two axes, by the bits of `turn`."""
    if turn & 1:
        values = values[..., ::-1, :]
    if turn & 2:
        values = values[..., ::-1]
    return np.ascontiguousarray(values.swapaxes(-1, -2) if turn & 4 else values)


def _filled(values: NDArray[Value], length: int, value: float) -> NDArray[Value]:
    """`(n, ...)` with more of `value` up to `length`."""
    more = [(0, length - len(values)), *((0, 0) for _ in values.shape[1:])]
    return np.pad(values, more, constant_values=value)
