"""Values of a member: quantiles of each pixel's own distribution, as the chances give it.

A pixel's chances say how likely it is to be at or above each threshold. With a share s, uniform
between 0 and 1, the member is at or above a threshold exactly where s is below its chance. So over
many members the share of those at or above each threshold is the model's chance of it. Chances
that rise with the threshold, which no distribution has, are first set half-way between the
greatest falling curve below them and the least one above.

Between two thresholds the log-odds of the chance fall evenly over model units, which are
logarithmic for rain: as the odds of a logistic distribution do. So a pixel that surely lies in a
class lies in its middle, and one near a threshold stays near it. Above the last threshold the
chance goes on falling exponentially over physical units, as steeply as between the last two; where
the forecast field lies there, half of the values are above it. Below the first threshold nothing
exceeds the field, so that a dry one stays dry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array, FrameCodec
from stpl_core.scores.images import Doubles

_CLEARLY = 0.99
"""Of the first threshold, model units, below which values without it stay: a codec takes what is
within its rounding of a threshold as having reached it."""
_JUST_BELOW = 1 - 1e-5
"""Of a class: the threshold at its end belongs to the next one."""
_NEVER = 1e-7
"""Of chances: their log-odds are finite."""
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Distribution:
    """What each pixel of one frame may be; n is C * H * W."""

    codec: FrameCodec
    levels: Doubles
    """`(Q + 2,)`, model units: 0, the thresholds, 1."""
    chances: Doubles
    """`(Q + 2, n)`: to reach each of them, falling from 1 to 0."""
    field: Doubles
    """`(n,)`: the forecast, model units."""

    def values(self, shares: Doubles) -> Array:
        """The values that are exceeded with these probabilities.

        Args:
            shares: `(n,)`, 0 to 1.

        Returns:
            `(n,)`, physical units.
        """
        reached = (shares < self.chances[1:-1]).sum(axis=0)  # (n,): thresholds
        inside = np.zeros(len(shares))  # model units
        at = np.flatnonzero((reached > 0) | (self.field > 0))
        inside[at] = self._between(at, reached[at], shares[at])
        values = self.codec.physical_from_model(inside.astype(np.float32))
        at = np.flatnonzero(reached == len(self.levels) - 2)
        values[at] = self._above(at, shares[at])
        return values

    def _between(self, at: Pixels, reached: Pixels, shares: Doubles) -> Doubles:
        """In the class above the last threshold that was reached; model units."""
        low, high = self.levels[reached], self.levels[reached + 1]
        more, less = (_log_odds(self.chances[n, at]) for n in (reached, reached + 1))
        part = (more - _log_odds(shares)) / np.maximum(more - less, 1e-9)
        found = low + np.clip(part, 0, _JUST_BELOW) * (high - low)
        without = np.minimum(np.minimum(found, self.field[at]), self.levels[1] * _CLEARLY)
        return np.where(reached == 0, without, found)

    def _above(self, at: Pixels, shares: Doubles) -> Array:
        """Where the last threshold was reached."""
        before, top = self.codec.physical_from_model(self.levels[-3:-1].astype(np.float32)).tolist()
        chance, more = self.chances[-2, at], self.chances[-3, at]
        scale = (top - before) / np.maximum(np.log(more / chance), 1.0)
        field = self.codec.physical_from_model(self.field[at].astype(np.float32))
        scale = np.maximum(scale, (field - top) / np.log(2))
        found = top + scale * np.log(chance / np.maximum(shares, 1e-12))
        return np.asarray(np.minimum(found, self.codec.high), np.float32)


def _log_odds(chance: Doubles) -> Doubles:
    inner = np.clip(chance, _NEVER, 1 - _NEVER)
    return np.log(inner / (1 - inner))


def distribution_of(
    codec: FrameCodec, thresholds: tuple[float, ...], chances: Array, frame: Array
) -> Distribution:
    """What the pixels of a frame may be.

    Args:
        codec: of the model.
        thresholds: Q of them, rising, physical units.
        chances: `(Q, C, H, W)`, to be at or above each.
        frame: `(C, H, W)`, physical units: the forecast.
    """
    inner = codec.model_from_physical(np.asarray(thresholds, np.float32))
    falling = falling_chances(chances.reshape(len(thresholds), -1).astype(np.float64))
    ends = np.ones((1, falling.shape[1])), np.zeros((1, falling.shape[1]))
    return Distribution(
        codec,
        np.concatenate([[0.0], inner, [1.0]]).astype(np.float64),
        np.concatenate([ends[0], falling, ends[1]]),
        codec.model_from_physical(frame).ravel().astype(np.float64),
    )


def falling_chances(chances: Doubles) -> Doubles:
    """`(Q, n)` that fall along Q; what falls already stays as it is."""
    below = np.minimum.accumulate(chances, axis=0)
    above = np.maximum.accumulate(chances[::-1], axis=0)[::-1]
    return 0.5 * (below + above)
