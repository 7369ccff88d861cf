"""Events: pixels at or above a threshold. Counts, and the fractions of neighbourhoods.

Everything here is a sum, so that sums of parts are the sums of the whole; the scores are worked out
from the sums at the end (`csi`, `pod`, `far`, `bias`, `fss`); NaN where nothing ever happened.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles, Mask


def contingency(
    forecast: Array, truth: Array, thresholds: Sequence[float], valid: Mask | None = None
) -> Doubles:
    """Count hits, misses and false alarms.

    Args:
        forecast: `(N, C, H, W)`, physical units.
        truth: the same shape.
        thresholds: physical units; a pixel at the threshold is an event.
        valid: `(N, H, W)`, True where a pixel counts.

    Returns:
        `(thresholds, 3)`.
    """
    counts = np.zeros((len(thresholds), 3))
    for n, threshold in enumerate(thresholds):
        predicted = _events(forecast, threshold, valid)
        seen = _events(truth, threshold, valid)
        hits = np.count_nonzero(predicted & seen)
        counts[n] = hits, np.count_nonzero(seen) - hits, np.count_nonzero(predicted) - hits
    return counts


def fraction_sums(
    forecast: Array,
    truth: Array,
    thresholds: Sequence[float],
    scales: Sequence[int],
    valid: Mask | None = None,
) -> Doubles:
    """Sum squares of the share of events in square neighbourhoods (Roberts and Lean 2008).

    Pixels outside the frame, and those that do not count, hold no event.

    Args:
        forecast: `(N, C, H, W)`, physical units.
        truth: the same shape.
        thresholds: physical units.
        scales: sides of the squares, in pixels.
        valid: `(N, H, W)`, True where a pixel counts.

    Returns:
        `(thresholds, scales, 3)`: of the forecast squared, of the truth squared, of their product.
    """
    sums = np.zeros((len(thresholds), len(scales), 3))
    for n, threshold in enumerate(thresholds):
        predicted = _corner_sums(_events(forecast, threshold, valid))
        seen = _corner_sums(_events(truth, threshold, valid))
        for m, scale in enumerate(scales):
            f, o = _shares(predicted, scale), _shares(seen, scale)  # (N, C, H, W)
            sums[n, m] = np.vdot(f, f), np.vdot(o, o), np.vdot(f, o)
    return sums


def event_shares(values: Array, threshold: float, scale: int) -> Doubles:
    """Share of events in the square of `scale` pixels around each pixel, `(N, C, H, W)`.

    Pixels outside the frame hold no event.
    """
    return _shares(_corner_sums(_events(values, threshold, None)), scale)


def csi(counts: Doubles) -> Doubles:
    """Critical success index of `(..., 3)` counts: hits over all events predicted or observed."""
    return _ratio(counts[..., 0], counts.sum(axis=-1))


def pod(counts: Doubles) -> Doubles:
    """Probability of detection of `(..., 3)` counts: hits over what was seen."""
    return _ratio(counts[..., 0], counts[..., 0] + counts[..., 1])


def far(counts: Doubles) -> Doubles:
    """False alarm ratio of `(..., 3)` counts: false alarms over all predicted events."""
    return _ratio(counts[..., 2], counts[..., 0] + counts[..., 2])


def bias(counts: Doubles) -> Doubles:
    """Frequency bias of `(..., 3)` counts: events predicted over observed, 1 is right."""
    return _ratio(counts[..., 0] + counts[..., 2], counts[..., 0] + counts[..., 1])


def fss(sums: Doubles) -> Doubles:
    """Fractions skill score of `(..., 3)` sums: 1 is perfect, 0 has no overlap."""
    return _ratio(2.0 * sums[..., 2], sums[..., 0] + sums[..., 1])


def _ratio(part: Doubles, whole: Doubles) -> Doubles:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))


def _events(values: Array, threshold: float, valid: Mask | None) -> NDArray[np.bool_]:
    """Where an event is, `(N, C, H, W)`; NaN is none."""
    events = values >= np.float32(threshold)
    return events if valid is None else events & valid[:, None]


def _corner_sums(events: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Events above and left of each corner, `(N, C, H + 1, W + 1)`; whole numbers, so exact."""
    inside = events.cumsum(axis=-2, dtype=np.int64).cumsum(axis=-1)
    return np.pad(inside, ((0, 0), (0, 0), (1, 0), (1, 0)))


def _shares(corners: NDArray[np.int64], scale: int) -> Doubles:
    """Share of events in the square around each pixel, `(N, C, H, W)`.

    An even side reaches one pixel further up and left, as in scipy's and pysteps' filters.
    """
    height, width = corners.shape[-2] - 1, corners.shape[-1] - 1
    rows, columns = np.arange(height) - scale // 2, np.arange(width) - scale // 2
    top, bottom = np.clip(rows, 0, height), np.clip(rows + scale, 0, height)
    left, right = np.clip(columns, 0, width), np.clip(columns + scale, 0, width)
    below, above = corners[..., bottom, :], corners[..., top, :]  # (N, C, H, W + 1)
    inside = below[..., right] - below[..., left] - above[..., right] + above[..., left]
    return np.asarray(inside / scale**2)
