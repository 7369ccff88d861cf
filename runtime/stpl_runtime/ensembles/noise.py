"""Gaussian noise that looks like a field, lives like it and moves with it.

As in STEPS (Bowler et al. 2006; Seed 2003): white noise takes the power spectrum of the newest
field, and waves of each length forget what was observed at the pace that the frames show
(scale-dependent AR(1)): noise of short waves is there at once, that of long ones comes with time
and stays. The noise moves along. Every value at every pixel and lead time is standard normal:
the noise is stationary, it is scaled by its exact variance, and moved by whole pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import erfc, sqrt

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles
from stpl_runtime.ensembles.motion import block_motion, deviations, paths_back, window_of

Spectrum = NDArray[np.complex64]

_DRY_SLOPE = -1.5
"""Amplitude over wavenumber in log-log, where a field has nothing to take a spectrum from."""
_LONGEST_MEMORY = 0.999
"""What a step leaves of a wave at most: frames of one field that stands still do not freeze it."""
_TABLE = np.linspace(-7.0, 7.0, 2**14 + 1)
"""Linear between them, the normal distribution is right to 1e-7."""


@dataclass(frozen=True)
class Noise:
    """The noise of one nowcast; any number of members is drawn from it."""

    amplitude: Array
    """`(H, W)` over wavenumbers, as numpy's FFT orders them; its mean square is 1."""
    memory: Array
    """`(H, W)`: what one step leaves of each wave, 0 to 1."""
    paths: list[NDArray[np.int32]]
    """Of each lead time the pixel that each one comes from, `(H, W)`, counted along the rows."""

    def pairs(self, seed: tuple[int, ...]) -> Iterator[tuple[Array, Array]]:
        """Two members of independent noise at each lead time, `(H, W)` each, standard normal.

        Args:
            seed: the same numbers give the same noise, however many members and lead times.
        """
        draw = np.random.default_rng(seed)
        fresh = np.sqrt(1 - np.square(self.memory))
        waves: Spectrum = np.zeros(self.amplitude.shape, np.complex64)
        power, kept = np.square(self.amplitude), np.ones_like(self.memory)
        for path in self.paths:
            waves = self.memory * waves + fresh * _white(draw, waves.shape)
            kept = kept * np.square(self.memory)
            size = np.sqrt((power * (1 - kept)).mean(dtype=np.float64))
            # Complex white noise holds two real fields: one transform makes both.
            field = np.fft.ifft2(waves * self.amplitude, norm="ortho") / size  # (H, W)
            moved = field.ravel()[path]
            yield moved.real.astype(np.float32), moved.imag.astype(np.float32)


def noise_of(frames: Array, steps: int) -> Noise:
    """The noise that fits what was observed.

    Args:
        frames: `(T, H, W)`, model units (decibels or the like for rain), oldest first; NaN where
            nothing was observed.
        steps: K lead times.
    """
    size = frames.shape[1:]
    motion = block_motion(frames)
    paths = [
        (row % size[0] * size[1] + column % size[1]).astype(np.int32)
        for row, column in paths_back(motion, steps)
    ]
    waves = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])  # (H, W)
    return Noise(
        _amplitude(frames[-1], waves).astype(np.float32),
        _memory(frames, motion, waves).astype(np.float32),
        paths,
    )


def exceeded_share(noise: Array) -> Doubles:
    """The share of standard normal values above each one: uniform between 0 and 1."""
    return np.interp(noise, _TABLE, _shares())


@cache
def _shares() -> Doubles:
    return np.array([0.5 * erfc(value / sqrt(2)) for value in _TABLE.tolist()])


def _white(draw: np.random.Generator, size: tuple[int, ...]) -> Spectrum:
    values = draw.standard_normal((*size, 2), dtype=np.float32)
    return values.view(np.complex64)[..., 0]  # (H, W)


def _amplitude(field: Array, waves: Doubles) -> Doubles:
    """Of the newest field, which a window takes down to nothing at its edges."""
    found = np.abs(np.fft.fft2(deviations(field[None], window_of(waves.shape))[0]))
    if found.max() <= 1e-6 * found.size**0.5:
        found = np.where(waves > 0, waves, np.inf) ** _DRY_SLOPE
    # The mean over the field varies as its longest waves do.
    nearest = waves <= np.sort(waves, axis=None)[min(8, waves.size - 1)]
    found.flat[0] = 0.0
    found.flat[0] = found[nearest].sum() / max(1, nearest.sum() - 1)
    return np.asarray(found / np.sqrt(np.square(found).mean()), np.float64)


def _memory(frames: Array, motion: Doubles, waves: Doubles) -> Doubles:
    """What one step leaves of each wave: from the oldest frame, moved along, to the newest.

    Over a single step the longest waves would seem to last for ever.
    """
    lag = len(frames) - 1
    if not lag:
        return np.full(waves.shape, _LONGEST_MEMORY)
    *_, (rows, columns) = paths_back(motion, lag)
    inside = rows.clip(0, waves.shape[0] - 1), columns.clip(0, waves.shape[1] - 1)
    pair = deviations(np.stack([frames[0][inside], frames[-1]]), window_of(waves.shape))
    before, after = np.fft.fft2(pair)
    least = 1 / max(waves.shape)
    octaves = np.floor(-np.log2(np.maximum(waves, least))).clip(0).astype(np.int64)

    def in_octaves(one: Spectrum, other: Spectrum) -> Doubles:
        product = (one * other.conj()).real.ravel()
        return np.asarray(np.bincount(octaves.ravel(), product), np.float64)

    scale = np.sqrt(in_octaves(before, before) * in_octaves(after, after))
    known = scale > 1e-9 * max(scale.max(), 1e-9)
    nothing = np.full(len(scale), _LONGEST_MEMORY**lag)
    alike = np.divide(in_octaves(before, after), scale, out=nothing, where=known)
    kept = np.clip(alike, 0, 1) ** (1 / lag)
    kept = np.maximum.accumulate(kept.clip(0, _LONGEST_MEMORY))  # longer waves live longer
    middles = np.log2(1.5) + np.arange(len(kept))
    length = -np.log2(np.maximum(waves, least))  # (H, W), octaves
    return np.asarray(np.interp(length, middles, kept), np.float64)
