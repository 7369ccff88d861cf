"""Scores of pictures, one number for each frame: PSNR, SSIM, cross-entropy.

See bibliography.md 4.1 and 4.2 for the conventions.

Frames are `(N, C, H, W)` in [0, 1]; `valid` is `(N, H, W)`, True where a pixel counts, or None for
all. A frame that cannot be scored gives NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

WINDOW = 7
"""Side of SSIM's uniform window, in pixels."""

STATE_EPSILON = 1e-6
"""How far the predicted share is kept from 0 and 1 in the cross-entropy."""

_K1, _K2 = 0.01, 0.03


def as_bytes(frames: Array) -> NDArray[np.uint8]:
    """Values in [0, 1] as 0..255, cut off and not rounded: so did the code of the papers."""
    return (np.clip(frames, 0, 1) * np.float32(255)).astype(np.uint8)


def psnr(forecast: NDArray[np.generic], truth: NDArray[np.generic], peak: float,
         valid: Mask | None = None) -> Doubles:  # fmt: skip
    """Peak signal-to-noise ratio of each frame in dB, `(N,)`; inf for identical frames."""
    squared = np.square(forecast.astype(np.float64) - truth.astype(np.float64))  # (N, C, H, W)
    if valid is None:
        mean = squared.mean(axis=(1, 2, 3))
    else:
        count = valid.sum(axis=(1, 2)) * squared.shape[1]
        total = np.where(valid[:, None], squared, 0.0).sum(axis=(1, 2, 3))
        mean = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(peak**2 / mean))


def ssim(forecast: NDArray[np.generic], truth: NDArray[np.generic], data_range: float,
         valid: Mask | None = None) -> Doubles:  # fmt: skip
    """Structural similarity of each frame, `(N,)`, mean over channels (Wang et al. 2004).

    A 7x7 uniform window, sample covariance, K1 = 0.01, K2 = 0.03, windows inside the frame only: as
    scikit-image's `structural_similarity` with its defaults. With `valid`, the mean is over windows
    whose every pixel counts. Frames smaller than the window give NaN.
    """
    count, _, height, width = forecast.shape
    if min(height, width) < WINDOW:
        return np.full(count, np.nan)
    x, y = forecast.astype(np.float64), truth.astype(np.float64)
    if valid is not None:  # what is not observed may be NaN, and NaN times 0 is NaN
        x, y = np.where(valid[:, None], x, 0.0), np.where(valid[:, None], y, 0.0)
    mean_x, mean_y = box_mean(x), box_mean(y)  # (N, C, H - 6, W - 6)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x = sample * (box_mean(x * x) - mean_x**2)
    var_y = sample * (box_mean(y * y) - mean_y**2)
    both = sample * (box_mean(x * y) - mean_x * mean_y)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    similarity = (above / below).mean(axis=1)  # (N, H - 6, W - 6)
    if valid is None:
        return np.asarray(similarity.mean(axis=(1, 2)))
    whole = box_mean(valid[:, None].astype(np.float64))[:, 0] > 1 - 0.5 / WINDOW**2
    windows = whole.sum(axis=(1, 2))
    total = np.where(whole, similarity, 0.0).sum(axis=(1, 2))
    return np.asarray(np.divide(total, windows, out=np.full(count, np.nan), where=windows > 0))


def box_mean(values: Doubles) -> Doubles:
    """Means over 7x7 windows that lie inside, `(..., H, W)` -> `(..., H - 6, W - 6)`."""
    # Seven additions an axis: a running sum would be quicker and loses digits in large frames.
    rows = sum(values[..., n : values.shape[-2] - WINDOW + 1 + n, :] for n in range(WINDOW))
    rows = np.asarray(rows)
    both = sum(rows[..., n : values.shape[-1] - WINDOW + 1 + n] for n in range(WINDOW))
    return np.asarray(both) / WINDOW**2


def cross_entropy(forecast: Array, truth: Array, valid: Mask | None = None) -> Doubles:
    """Cross-entropy of each frame in nats, summed over C, H, W, `(N,)` (PredRNN, Table 1).

    The truth is a soft target; the forecast is read as a probability, kept from 0 and 1 by
    `STATE_EPSILON`. No paper's code has it: the number depends on that choice
    (bibliography.md 4.2).
    """
    share = np.clip(forecast.astype(np.float64), STATE_EPSILON, 1 - STATE_EPSILON)
    target = truth.astype(np.float64)
    nats = -(target * np.log(share) + (1 - target) * np.log1p(-share))  # (N, C, H, W)
    if valid is not None:
        nats = np.where(valid[:, None], nats, 0.0)
    return np.asarray(nats.sum(axis=(1, 2, 3)))
