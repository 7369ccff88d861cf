"""Ensembles beside what happened: CRPS, rank histogram, spread and error.

Everything here is a sum, so that sums of parts are the sums of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stpl_core.codec import Array
from stpl_core.scores.images import Doubles, Mask


@dataclass(frozen=True)
class EnsembleScores:
    """Of each lead time, `(K,)`; NaN where nothing was scored."""

    members: int
    """M."""
    pixels: Doubles
    """That were scored."""
    crps: Doubles
    """Continuous ranked probability score, physical units, mean over pixels: 0 is perfect, and of
    one member it is the mean absolute error."""
    ranks: Doubles
    """`(K, M + 1)`: share of pixels whose truth has 0, 1 ... M members below it; where it equals
    some, shared evenly among the ranks that it could have. 1 / (M + 1) each is right."""
    spread: Doubles
    """Root of the mean variance of the members, physical units."""
    error: Doubles
    """Root of the mean square of the members' mean less the truth."""


class EnsembleAccumulator:
    """Adds ensembles up."""

    def __init__(self, horizon: int, members: int) -> None:
        """Nothing yet.

        Args:
            horizon: K.
            members: M, 2 or more.
        """
        self._members = members
        self._sums = np.zeros((horizon, 4))
        """Of each lead time: pixels, CRPS, variance, square of the mean's error."""
        self._ranks = np.zeros((horizon, members + 1))

    def update(self, members: Array, truth: Array, valid: Mask | None = None) -> None:
        """Add one sequence.

        Args:
            members: `(M, K, C, H, W)`, physical units.
            truth: `(K, C, H, W)`.
            valid: `(H, W)`, True where a pixel counts.
        """
        for k, expected in enumerate(truth):
            where = np.broadcast_to(True if valid is None else valid, expected.shape)
            values = np.sort(members[:, k][:, where].astype(np.float64), axis=0)  # (M, n)
            seen = expected[where].astype(np.float64)  # (n,)
            mean = values.mean(axis=0)
            self._sums[k] += (
                seen.size,
                crps(values, seen).sum(),
                values.var(axis=0, ddof=1).sum(),
                np.square(mean - seen).sum(),
            )
            self._ranks[k] += ranks(values, seen)

    def result(self) -> EnsembleScores:
        """The scores of all that was added."""
        pixels, crps_sum, variance, square = self._sums.T  # (K,) each
        with np.errstate(invalid="ignore"):
            return EnsembleScores(
                members=self._members,
                pixels=pixels,
                crps=crps_sum / pixels,
                ranks=self._ranks / pixels[:, None],
                spread=np.sqrt(variance / pixels),
                error=np.sqrt(square / pixels),
            )


def crps(values: Doubles, truth: Doubles) -> Doubles:
    """CRPS of the members' own distribution: `(n,)`.

    Args:
        values: `(M, n)`, rising along M.
        truth: `(n,)`.
    """
    count = len(values)
    weights = (2 * np.arange(1, count + 1) - count - 1)[:, None]
    apart = (weights * values).sum(axis=0) / count**2  # half of the mean difference of two members
    return np.asarray(np.abs(values - truth).mean(axis=0) - apart, np.float64)


def ranks(values: Doubles, truth: Doubles) -> Doubles:
    """How many pixels have each rank, `(M + 1,)`; see `EnsembleScores.ranks`."""
    below, equal = (values < truth).sum(axis=0), (values == truth).sum(axis=0)  # (n,) each
    share = 1.0 / (equal + 1)
    size = len(values) + 2
    begins = np.bincount(below, share, size)
    ends = np.bincount(below + equal + 1, share, size)
    return np.asarray(np.cumsum(begins - ends)[:-1], np.float64)
