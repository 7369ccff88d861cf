"""Scores of predicted frames, per lead time (bibliography.md 4.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.errors import FrameError

PerLead = NDArray[np.float64]
"""(K,), one value for each lead time 1..K."""


def mse_per_frame(
    forecast: Array, truth: Array, observed: NDArray[np.bool_] | None = None
) -> PerLead:
    """Squared error summed over C, H, W, averaged over sequences: the papers' "MSE / frame".

    Args:
        forecast: `(N, K, C, H, W)`.
        truth: the same shape.
        observed: `(N, K, H, W)`, False where a pixel of the truth was not observed and does not
            count; None: all were.
    """
    squared = np.square(_error(forecast, truth))
    if observed is not None:
        squared *= observed[:, :, None]  # (N, K, C, H, W)
    return np.asarray(squared.sum(axis=(2, 3, 4)).mean(axis=0))  # (K,)


def mae_per_frame(forecast: Array, truth: Array) -> PerLead:
    """Absolute error summed over C, H, W, averaged over sequences: the papers' "MAE / frame"."""
    absolute = np.abs(_error(forecast, truth))
    return np.asarray(absolute.sum(axis=(2, 3, 4)).mean(axis=0))  # (K,)


def psnr_db(forecast: Array, truth: Array, peak: float = 1.0) -> PerLead:
    """Peak signal-to-noise ratio from the mean squared error over N, C, H, W; inf if identical."""
    squared = np.square(_error(forecast, truth)).mean(axis=(0, 2, 3, 4))  # (K,)
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(peak**2 / squared))


def _error(forecast: Array, truth: Array) -> NDArray[np.float64]:
    """Difference in float64 `(N, K, C, H, W)`; shapes are never stretched to fit."""
    if forecast.shape != truth.shape or forecast.ndim != 5:
        raise FrameError(
            f"a forecast of shape {forecast.shape}",
            expected=f"(N, K, C, H, W) like the truth's {truth.shape}",
            fix="compare the same sequences and lead times",
        )
    return np.asarray(forecast.astype(np.float64) - truth)
