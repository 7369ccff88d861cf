"""The radially averaged power spectrum: a forecast that blurs loses power at short waves."""

from __future__ import annotations

import numpy as np

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles

BANDS = ((2, 4), (4, 16), (16, 64))
"""Wavelengths in pixels, the lower end included."""


def wave_count(height: int, width: int) -> int:
    """Number of wavenumbers 0, 1, 2, ... (waves per frame) that the spectrum of a frame has."""
    longer = max(height, width)
    return longer // 2 + longer % 2


def radial_power(frames: Array) -> Doubles:
    """Power at each wavenumber, summed over frames and averaged over channels.

    The power of a frame is |FFT|^2 / (H W), averaged over the ring of each whole wavenumber, as
    pysteps' `rapsd`.

    Args:
        frames: `(N, C, H, W)`, finite.

    Returns:
        `(wave_count(H, W),)`.
    """
    height, width = frames.shape[-2:]
    fields = frames.astype(np.float64)
    power = np.square(np.abs(np.fft.fft2(fields))) / (height * width)  # (N, C, H, W)
    whole = power.mean(axis=1).sum(axis=0)  # (H, W)
    y = np.fft.fftfreq(height, 1 / height)[:, None]
    x = np.fft.fftfreq(width, 1 / width)[None]
    ring = np.hypot(y, x).round().astype(np.int64)  # (H, W)
    waves = wave_count(height, width)
    kept = ring < waves
    total = np.bincount(ring[kept], weights=whole[kept], minlength=waves)
    return np.asarray(total / np.bincount(ring[kept], minlength=waves))


def band_power(power: Doubles, longer_side: int) -> Doubles:
    """The radially averaged power added up within each of `BANDS`, `(bands,)`.

    Args:
        power: of `radial_power`.
        longer_side: of the frame in pixels; a wavelength is this over the wavenumber. Across the
            shorter side waves of that number are shorter than that.
    """
    waves = np.arange(1, len(power))
    lengths = longer_side / waves
    return np.array(
        [power[1:][(lengths >= low) & (lengths < high)].sum() for low, high in BANDS], np.float64
    )
