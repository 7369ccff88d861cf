"""Chances from one forecast: the share of the pixels around that have the event.

The simplest chances there are (Theis et al. 2005), and what a model's chances should be better
than, once a good forecast such as optical flow is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stpl_core.codec import Array
from stpl_core.scores.events import event_shares
from stpl_core.scores.images import Doubles, Mask


def neighbourhood_chances(frames: Array, threshold: float, side: int) -> Doubles:
    """Share of pixels with the event in the square around each, inside the frame.

    Args:
        frames: `(N, C, H, W)`, physical units.
        threshold: a pixel at the threshold is an event.
        side: of the square, in pixels.
    """
    inside = event_shares(np.ones((1, 1, *frames.shape[2:]), np.float32), 1.0, side)
    return np.asarray(event_shares(frames, threshold, side) / inside)


class NeighbourhoodBrier:
    """Adds up the Brier scores of such chances, for squares of several sides."""

    def __init__(self, horizon: int, thresholds: Sequence[float], sides: Sequence[int]) -> None:
        """Nothing yet.

        Args:
            horizon: K.
            thresholds: Q of them, physical units.
            sides: of the squares, in pixels.
        """
        self._thresholds, self.sides = tuple(thresholds), tuple(sides)
        self._sums = np.zeros((len(self.sides), horizon, len(self._thresholds), 2))
        """Squares of chance less event, and pixels."""

    def update(self, forecast: Array, truth: Array, valid: Mask | None = None) -> None:
        """Add some sequences.

        Args:
            forecast: `(N, K, C, H, W)`, physical units.
            truth: the same shape.
            valid: `(N, H, W)`, True where a pixel counts.
        """
        seen = np.ones(truth[:, 0].shape, np.bool_)  # (N, C, H, W)
        if valid is not None:
            seen &= valid[:, None]
        for s, k, q in np.ndindex(*self._sums.shape[:3]):
            threshold = self._thresholds[q]
            chance = neighbourhood_chances(forecast[:, k], threshold, self.sides[s])
            off = (chance - (truth[:, k] >= np.float32(threshold)))[seen]
            self._sums[s, k, q] += np.array([np.vdot(off, off), off.size])

    def result(self) -> dict[int, Doubles]:
        """Side -> Brier score, `(K, Q)`; NaN where nothing was scored."""
        squares, pixels = self._sums[..., 0], self._sums[..., 1]
        nothing = np.full(squares.shape, np.nan)
        brier = np.divide(squares, pixels, out=nothing, where=pixels > 0)
        return dict(zip(self.sides, brier, strict=True))
