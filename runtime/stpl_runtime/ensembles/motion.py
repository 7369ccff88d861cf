"""How a field moves: cross-correlation of blocks of frames, with numpy alone.

An ensemble moves its noise along, so that a cell that is stronger in a member stays stronger where
it goes. That needs the motion of weather to a pixel or so, not of single pixels; and the same
numbers on every machine, whether OpenCV is installed there or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles

Indices = NDArray[np.int64]

_BLOCK = 128
"""Side of a block in pixels; neighbours share half of it."""
_FURTHEST = 0.25
"""Of a block's side that a field moves from one frame to the next at most."""
_SHARED = 0.25
"""Weight of the whole field beside a block's own: where a block is dry, it moves as the rest."""


def block_motion(frames: Array) -> Doubles:
    """How far what is at each pixel moved from one frame to the next, on average.

    Args:
        frames: `(T, H, W)`, model units, oldest first; NaN where nothing was observed.

    Returns:
        `(2, H, W)`, pixels down and right; zero where there is nothing to follow.
    """
    height, width = frames.shape[1:]
    rows, columns = _starts(height), _starts(width)
    side = min(_BLOCK, height), min(_BLOCK, width)
    surfaces = np.zeros((len(rows), len(columns), *side))
    window = window_of(side)
    for r, top in enumerate(rows):
        for c, left in enumerate(columns):
            block = frames[:, top : top + side[0], left : left + side[1]]
            surfaces[r, c] = _correlation(deviations(block, window))
    surfaces += _SHARED * surfaces.mean(axis=(0, 1))
    vectors = np.array([[_peak(surface) for surface in row] for row in surfaces])  # (R, S, 2)
    middles = [np.array(rows) + (side[0] - 1) / 2, np.array(columns) + (side[1] - 1) / 2]
    return np.stack([_spread(vectors[..., n], middles, (height, width)) for n in (0, 1)])


def paths_back(motion: Doubles, steps: int) -> Iterator[tuple[Indices, Indices]]:
    """Where each pixel comes from, 1 to `steps` frames before, along a motion that stays.

    Args:
        motion: `(2, H, W)`, pixels a step, down and right.
        steps: K.

    Yields:
        Of each step rows and columns, `(H, W)` each, whole pixels; they may lie outside.
    """
    height, width = motion.shape[1:]
    down, right = np.mgrid[:height, :width].astype(np.float64)  # (H, W) each
    for _ in range(steps):
        row = down.round().astype(np.int64).clip(0, height - 1)
        column = right.round().astype(np.int64).clip(0, width - 1)
        down, right = down - motion[0, row, column], right - motion[1, row, column]
        yield down.round().astype(np.int64), right.round().astype(np.int64)


def deviations(frames: Array, window: Doubles) -> Doubles:
    """From the mean, and nothing where nothing was observed: the edge of a radar does not move.

    Args:
        frames: `(T, H, W)`; NaN where nothing was observed.
        window: `(H, W)`, weights that fall to the edges.

    Returns:
        `(T, H, W)`, weighted.
    """
    seen = np.isfinite(frames)
    weights = np.where(seen, window, 0.0)
    values = np.where(seen, frames, 0.0).astype(np.float64)
    total = np.maximum(weights.sum((1, 2), keepdims=True), 1e-9)
    mean = (weights * values).sum((1, 2), keepdims=True) / total  # (T, 1, 1)
    return np.asarray(weights * (values - mean), np.float64)


def window_of(size: tuple[int, int]) -> Doubles:
    """`(H, W)`, 1 in the middle, towards 0 at the edges (von Hann)."""
    down, across = (np.hanning(side + 2)[1:-1] for side in size)
    return np.asarray(np.outer(down, across), np.float64)


def _starts(size: int) -> list[int]:
    """First pixels of blocks that cover `size` pixels and share half with their neighbours."""
    if size <= _BLOCK:
        return [0]
    count = -(-(size - _BLOCK) // (_BLOCK // 2)) + 1
    return [round(n * (size - _BLOCK) / (count - 1)) for n in range(count)]


def _correlation(block: Doubles) -> Doubles:
    """Of each frame with the next one, summed over the pairs: `(h, w)`, no motion at 0, 0."""
    spectra = np.fft.rfft2(block)  # (T, h, w / 2 + 1)
    cross = spectra[1:] * spectra[:-1].conj()
    # Half-way to phase correlation: sharper than the field's own correlation, calmer than phases.
    sharp = cross / np.sqrt(np.abs(cross) + 1e-9)
    return np.fft.irfft2(sharp.sum(axis=0), s=block.shape[1:])


def _peak(surface: Doubles) -> tuple[float, float]:
    """Displacement at the greatest correlation, to a part of a pixel; 0, 0 where there is none."""
    height, width = surface.shape
    far = int(height * _FURTHEST), int(width * _FURTHEST)
    near = np.roll(surface, far, axis=(0, 1))[: 2 * far[0] + 1, : 2 * far[1] + 1]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    if near[row, column] <= 1e-9:
        return 0.0, 0.0
    along = near[:, column], near[row]
    fine = [_vertex(line, int(at)) for line, at in zip(along, (row, column), strict=True)]
    return fine[0] - far[0], fine[1] - far[1]


def _vertex(line: Doubles, at: int) -> float:
    """Of the parabola through a greatest value and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    before, most, after = line[at - 1 : at + 2]
    bend = before - 2 * most + after
    return at + (0.0 if bend >= 0 else float(0.5 * (before - after) / bend))


def _spread(values: Doubles, middles: list[Doubles], size: tuple[int, int]) -> Doubles:
    """Of blocks to pixels, linearly between the middles of blocks: `(H, W)`."""
    down = np.stack(
        [np.interp(np.arange(size[0]), middles[0], column) for column in values.T], axis=1
    )  # (H, S)
    across = np.arange(size[1])
    return np.stack([np.interp(across, middles[1], row) for row in down])
