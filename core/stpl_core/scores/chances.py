"""Chances of events beside what happened: Brier score, reliability and ROC.

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

RANKS = 1000
"""Bins of the ROC, even in the root of the chance: fine where events are rare and chances low."""
_POINT = 50
"""Bins between two points of the curve that is drawn."""


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
    ranks: Doubles
    """`(K, Q, RANKS, 2)`: pixels and events by the root of their chance."""

    @property
    def skill(self) -> Doubles:
        """Brier skill score: 1 is perfect, 0 is no better than climatology."""
        return 1.0 - _ratio(self.brier, self.climatology)

    @property
    def roc_area(self) -> Doubles:
        """Area below the ROC curve, `(K, Q)`: 1 tells events from others, 0.5 does not."""
        return roc_area(self.ranks)

    def roc(self, threshold: int) -> tuple[Doubles, Doubles, Doubles, float]:
        """The ROC curve over all lead times, and its area.

        Returns:
            Chances from 1 down to 0, `(n,)`; the share of pixels without the event, and of those
            with it, whose chance is that or more; the area.
        """
        ranks = self.ranks[:, threshold].sum(0)  # (RANKS, 2)
        at = np.arange(RANKS, -1, -_POINT)
        false, true = (rates[::_POINT] for rates in _rates(ranks))
        return np.square(at / RANKS), false, true, float(roc_area(ranks))

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
        self.thresholds = tuple(thresholds)
        self._sums = np.zeros((horizon, len(self.thresholds), BINS, 4))
        """Of each bin: pixels, events, chances, squares of chance less event."""
        self._ranks = np.zeros((horizon, len(self.thresholds), RANKS, 2))

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
            event = (value[seen] >= np.float32(self.thresholds[q])).astype(np.float64)
            bins = np.minimum((likely * BINS).astype(np.int64), BINS - 1)
            for n, weights in enumerate((None, event, likely, np.square(likely - event))):
                self._sums[k, q, :, n] += np.bincount(bins, weights, BINS)
            ranks = np.minimum((np.sqrt(likely) * RANKS).astype(np.int64), RANKS - 1)
            for n, weights in enumerate((None, event)):
                self._ranks[k, q, :, n] += np.bincount(ranks, weights, RANKS)

    def result(self) -> ChanceScores:
        """The scores of all that was added."""
        count, events, chances, squares = np.moveaxis(self._sums, -1, 0)  # (K, Q, BINS) each
        total = count.sum(-1)
        share = _ratio(events.sum(-1), total)
        return ChanceScores(
            thresholds=self.thresholds,
            brier=_ratio(squares.sum(-1), total),
            climatology=share * (1.0 - share),
            count=count.astype(np.int64),
            forecast=_ratio(chances, count),
            observed=_ratio(events, count),
            ranks=self._ranks.copy(),
        )


def roc_area(ranks: Doubles) -> Doubles:
    """Area below the ROC curve of `(..., bins, 2)` pixels and events; NaN without both kinds."""
    false, true = _rates(ranks)
    return np.asarray((np.diff(false) * (true[..., 1:] + true[..., :-1]) / 2).sum(axis=-1))


def _rates(ranks: Doubles) -> tuple[Doubles, Doubles]:
    """False alarm rate and hit rate at each bin's lower end and above, `(..., bins + 1)`."""
    falling = ranks[..., ::-1, :].cumsum(axis=-2)
    events = falling[..., 1]
    found = []
    for counts in (falling[..., 0] - events, events):
        share = _ratio(counts, counts[..., -1:])
        found.append(np.concatenate([0.0 * share[..., :1], share], axis=-1))
    return found[0], found[1]


def _ratio(part: Doubles, whole: Doubles | NDArray[np.int64]) -> Doubles:
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))
