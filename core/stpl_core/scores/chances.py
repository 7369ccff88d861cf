"""Chances of events beside what happened: Brier score and reliability.

Everything here is a sum, so that sums of parts are the sums of the whole; the scores are worked out
from the sums at the end. Climatology is the share of pixels with the event, over all that is
scored at the same lead time: the best that one number can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles, Mask

BINS = 10
"""Of the chances, each a tenth wide; 1 is in the last."""


@dataclass(frozen=True)
class ChanceScores:
    """Of each lead time and threshold, `(K, Q)`; NaN where nothing was scored."""

    thresholds: tuple[float, ...]
    """Q of them, physical units."""
    brier: Doubles
    """Mean square of chance less event: 0 is perfect."""
    climatology: Doubles
    """The Brier score of the share of events as the chance everywhere."""
    count: NDArray[np.int64]
    """`(K, Q, BINS)`: pixels whose chance is in each bin."""
    forecast: Doubles
    """`(K, Q, BINS)`: their mean chance."""
    observed: Doubles
    """`(K, Q, BINS)`: how often the event happened there."""

    @property
    def skill(self) -> Doubles:
        """Brier skill score: 1 is perfect, 0 is no better than climatology."""
        return 1.0 - _ratio(self.brier, self.climatology)

    def reliability(self, threshold: int) -> tuple[NDArray[np.int64], Doubles, Doubles]:
        """Count, mean chance and observed frequency in each bin, over all lead times."""
        count = self.count[:, threshold]  # (K, BINS)
        total = count.sum(0)
        mean = [
            _ratio((np.nan_to_num(values[:, threshold]) * count).sum(0), total)
            for values in (self.forecast, self.observed)
        ]
        return total, mean[0], mean[1]


class ChanceAccumulator:
    """Adds forecasts of chances up."""

    def __init__(self, horizon: int, thresholds: Sequence[float]) -> None:
        """Nothing yet.

        Args:
            horizon: K.
            thresholds: Q of them, physical units; a pixel at the threshold is an event.
        """
        self._thresholds = tuple(thresholds)
        self._sums = np.zeros((horizon, len(self._thresholds), BINS, 4))
        """Of each bin: pixels, events, chances, squares of chance less event."""

    def update(self, chances: Array, truth: Array, valid: Mask | None = None) -> None:
        """Add some sequences.

        Args:
            chances: `(N, K, Q, C, H, W)`, 0 to 1.
            truth: `(N, K, C, H, W)`, physical units.
            valid: `(N, H, W)`, True where a pixel counts.
        """
        for k, q in np.ndindex(*self._sums.shape[:2]):
            chance, value = chances[:, k, q], truth[:, k]  # (N, C, H, W)
            seen = np.ones(value.shape, np.bool_)
            if valid is not None:
                seen &= valid[:, None]
            likely = chance[seen].astype(np.float64)
            event = (value[seen] >= np.float32(self._thresholds[q])).astype(np.float64)
            bins = np.minimum((likely * BINS).astype(np.int64), BINS - 1)
            for n, weights in enumerate((None, event, likely, np.square(likely - event))):
                self._sums[k, q, :, n] += np.bincount(bins, weights, BINS)

    def result(self) -> ChanceScores:
        """The scores of all that was added."""
        count, events, chances, squares = np.moveaxis(self._sums, -1, 0)  # (K, Q, BINS) each
        total = count.sum(-1)
        share = _ratio(events.sum(-1), total)
        return ChanceScores(
            thresholds=self._thresholds,
            brier=_ratio(squares.sum(-1), total),
            climatology=share * (1.0 - share),
            count=count.astype(np.int64),
            forecast=_ratio(chances, count),
            observed=_ratio(events, count),
        )


def _ratio(part: Doubles, whole: Doubles | NDArray[np.int64]) -> Doubles:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))
