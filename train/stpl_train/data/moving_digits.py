"""Moving MNIST's generator: digits that bounce in a box (bibliography.md 3.5).

Per digit: a start uniform in the free range, a direction uniform on the circle, a constant speed.
Per frame: move, then clamp at the wall and flip that part of the velocity, then draw. The first
frame is drawn after the first move, as in the reference code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.frames import FrameShape
from stpl_core.windows.placing import Indices
from stpl_train.data.digits import Bytes
from stpl_train.randomness import Stream, uniforms

Floats = NDArray[np.float64]

_DRAWS = 4  # per digit: picture, row, column, angle


def bounce(start: Floats, velocity: Floats, frames: int) -> Floats:
    """Positions after 1, 2, ... moves in the unit square, clamped at the walls.

    Args:
        start: `(..., 2)` in [0, 1].
        velocity: `(..., 2)`, way per frame.
        frames: how many.

    Returns:
        `(frames, ..., 2)` in [0, 1].
    """
    place, way = start.copy(), velocity.copy()
    path = np.empty((frames, *start.shape))
    for t in range(frames):
        place += way
        way[(place <= 0) | (place >= 1)] *= -1
        np.clip(place, 0, 1, out=place)
        path[t] = place
    return path


@dataclass(frozen=True)
class MovingDigits:
    """Sequences of moving digits; an endless set, or the first `count` of one."""

    images: Bytes
    """`(N, S, S)`"""
    frame: FrameShape
    length: int
    """Frames per sequence, T + K."""
    digits: int
    step: float
    """Way per frame as a fraction of the free range, which is the canvas less the digit."""
    seed: int
    stream: Stream
    count: int | None = None

    def batch(self, indices: Indices) -> Array:
        """Sequences `(B, T + K, 1, H, W)` float32 in [0, 1]."""
        draws = np.stack([self._draws(int(index)) for index in indices])  # (B, digits, 4)
        start = draws[..., 1:3]  # (B, digits, 2), row and column
        # math, not numpy: a vectorised sine may round otherwise at another place in the array.
        angles = [[math.tau * float(u) for u in row] for row in draws[..., 3]]
        velocity = self.step * np.array(
            [[(math.sin(a), math.cos(a)) for a in row] for row in angles]
        )  # (B, digits, 2)
        pictures = self.images[(draws[..., 0] * len(self.images)).astype(np.int64)]
        return self._draw(pictures, bounce(start, velocity, self.length))

    def _draws(self, index: int) -> Floats:
        return uniforms(self.seed, self.stream, index, self.digits * _DRAWS).reshape(-1, _DRAWS)

    def _draw(self, pictures: Bytes, path: Floats) -> Array:
        """Paste `(B, digits, S, S)` along `(T, B, digits, 2)`; overlaps take the brighter."""
        side = pictures.shape[-1]
        _, height, width = self.frame
        corner = (path * (height - side, width - side)).astype(np.int64)  # (T, B, digits, 2)
        canvas = np.zeros((len(pictures), self.length, height, width), dtype=np.uint8)
        b = np.arange(len(pictures))[None, :, None, None]
        t = np.arange(self.length)[:, None, None, None]
        for d in range(self.digits):
            rows = corner[:, :, d, 0, None, None] + np.arange(side)[:, None]  # (T, B, S, 1)
            columns = corner[:, :, d, 1, None, None] + np.arange(side)  # (T, B, 1, S)
            canvas[b, t, rows, columns] = np.maximum(
                canvas[b, t, rows, columns], pictures[:, d][None]
            )  # (T, B, S, S)
        return (canvas[:, :, None] / np.float32(255)).astype(np.float32)  # (B, T, 1, H, W)
