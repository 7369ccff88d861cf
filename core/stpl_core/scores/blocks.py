"""How far scores would differ on other storms: the bootstrap over blocks of windows.

Windows of one storm resemble each other, so a score stands not on its many windows but on its few
storms. A block is what belongs together in time: a storm, or a day of a long archive.
Whole blocks are drawn again and again with replacement, the sums of those drawn are added up, and
the scores worked out from them; the middle 95% of these scores are the interval. Forecasters that
were scored on the same windows are drawn together, so that the interval of their difference leaves
out what is hard for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.scores.images import Doubles

FEWEST = 5
"""Blocks without which no interval is given: it would be far too narrow."""
LEVEL = 0.95
"""Share of the draws inside an interval."""

DRAWS = 1000
_MOST = 500
"""Of more blocks, neighbours are joined: the interval stays as it is, and memory small."""
_KNOWN = 0.95
"""Share of the draws that must have a score, such as an event at all, for an interval."""
_SEED = 20

_APART = np.timedelta64(6, "h")
"""Windows further apart belong to two stretches of time."""
_DAY = np.timedelta64(1, "D")
_SPANS = 4
"""A long stretch is cut into blocks of so many windows at least."""

Labels = NDArray[np.int64]
Sums = Mapping[str, Doubles]
ScoresOf = Callable[[dict[str, Doubles]], dict[str, Doubles]]
"""Sums `(n, ...)` -> scores `(n,)` by name."""


def blocks_by_time(times: NDArray[np.datetime64]) -> Labels:
    """Number the blocks of windows by when they were observed.

    Windows less than six hours apart are one stretch of time, wherever they lie. One of more than a
    day is cut at midnight (UTC), or every few days where a window is that long.

    Args:
        times: `(N, T + K)`.

    Returns:
        `(N,)`, 0 to blocks - 1, rising with time.
    """
    begin, end = times.min(axis=1), times.max(axis=1)
    order = np.argsort(begin, kind="stable")
    reached = np.maximum.accumulate(end[order])
    apart = np.append(True, begin[order][1:] - reached[:-1] > _APART)
    stretch = np.cumsum(apart) - 1  # in the order of time
    days = max(1, int(np.ceil(_SPANS * (end - begin).max() / _DAY)))
    part = begin[order].astype("datetime64[D]").astype(np.int64) // days
    firsts = np.flatnonzero(apart)
    lasts = np.append(firsts[1:], len(order)) - 1
    long = (reached[lasts] - begin[order][firsts] > days * _DAY)[stretch]
    part = np.where(long, part, 0)
    cut = np.append(True, (np.diff(stretch) != 0) | (np.diff(part) != 0))
    labels = np.empty(len(order), np.int64)
    labels[order] = np.cumsum(cut) - 1
    return labels


def joined(labels: Labels) -> Labels:
    """Numbered 0, 1, 2, ...; where there are very many, neighbours become one."""
    count = len(np.unique(labels))
    dense = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return np.asarray(dense * _MOST // count if count > _MOST else dense, np.int64)


@dataclass(frozen=True)
class Draws:
    """Scores of every draw by their names."""

    per_lead: dict[str, Doubles]
    """`(DRAWS, K)`."""
    overall: dict[str, Doubles]
    """`(DRAWS,)`, all lead times together."""

    def less(self, other: Draws) -> Draws:
        """The difference, draw by draw."""
        return Draws(
            {name: values - other.per_lead[name] for name, values in self.per_lead.items()},
            {name: values - other.overall[name] for name, values in self.overall.items()},
        )


@dataclass(frozen=True)
class Interval:
    """Where the middle of the draws lies; NaN where too few had a score."""

    low: Doubles
    high: Doubles

    @property
    def sign(self) -> NDArray[np.int64]:
        """1 where all of it is above 0, -1 where all is below, else 0."""
        return (self.low > 0).astype(np.int64) - (self.high < 0)


@dataclass(frozen=True)
class Intervals:
    """Of every score by its name."""

    per_lead: dict[str, Interval]
    """`(K,)` each."""
    overall: dict[str, Interval]
    """`()` each."""


class BlockSums:
    """Sums of one forecaster, apart by block."""

    def __init__(self, count: int) -> None:
        """Start from nothing, of `count` blocks."""
        self._count = count
        self._sums: dict[str, Doubles] = {}
        """`(blocks, K, ...)`."""

    def add(self, block: int, sums: Sums) -> None:
        """Add the sums `(K, ...)` of some windows of a block."""
        for name, values in sums.items():
            if name not in self._sums:
                self._sums[name] = np.zeros((self._count, *values.shape))
            self._sums[name][block] += values

    def draws(self, scores_of: ScoresOf, counts: NDArray[np.int64]) -> Draws:
        """Work out the scores of every draw.

        Args:
            scores_of: of sums.
            counts: `(DRAWS, blocks)`, how often each block was drawn; see `drawn`.
        """
        weights = counts.astype(np.float64)
        sums = {name: np.tensordot(weights, one, axes=1) for name, one in self._sums.items()}
        leads = next(iter(sums.values())).shape[1]
        rows = len(counts) * leads
        flat = {name: one.reshape(rows, *one.shape[2:]) for name, one in sums.items()}
        whole = {name: one.sum(axis=1) for name, one in sums.items()}
        per_lead = {name: one.reshape(-1, leads) for name, one in scores_of(flat).items()}
        return Draws(per_lead, scores_of(whole))


def drawn(blocks: int) -> NDArray[np.int64]:
    """How often each block is in each draw, `(DRAWS, blocks)`; the same numbers every time."""
    random = np.random.default_rng(_SEED)
    return random.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)


def intervals(draws: Draws) -> Intervals:
    """The interval of each score."""
    return Intervals(
        {name: _interval(values) for name, values in draws.per_lead.items()},
        {name: _interval(values) for name, values in draws.overall.items()},
    )


def _interval(values: Doubles) -> Interval:
    """Of draws `(DRAWS, ...)`."""
    finite = np.isfinite(values)
    usable = finite.mean(axis=0) >= _KNOWN
    # Elsewhere zeros stand in, so that no quantile is taken of nothing.
    filled = np.where(usable, np.where(finite, values, np.nan), 0.0)
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(filled, (tail, 1 - tail), axis=0)
    return Interval(
        np.asarray(np.where(usable, low, np.nan)), np.asarray(np.where(usable, high, np.nan))
    )
