"""Events: a value at or above a level. A field that agrees with what is forecast of them.

A field of least squared error shows heavy rain nowhere once its place is uncertain. Here the chance
of each event is forecast beside the field, and the field is moved up to the level where the chance
is above a cut-off, and below it elsewhere. The cut-off of each level and lead time is the one with
the greatest CSI over held-out sequences, of those that forecast at most twice the events there are.
The chances themselves are calibrated on the same sequences, by Platt's (1999) straight line through
their logits.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RAMP = 0.25
"""Logits over which a pixel goes from below a level to above it: with a step, a rounding would."""
MARGIN = 1e-3
"""By how much the field is moved beyond a level, model units."""
START = 0.4
"""The cut-off before any was fitted, a chance."""
_LOW, _HIGH, _BINS = -7.0, 5.0, 200
_SPREAD = 1.5
"""Lead times over which cut-offs are smoothed, a standard deviation."""
_NEARLY = 0.99
"""Cut-offs with at least this share of the greatest CSI are as good: their mean is taken."""
_FEWEST = 50
"""Pixels with the event below which its cut-off and its chances are not fitted."""
_MOST_BIAS = 2.0
"""Events forecast over events that were: where hardly anything can be foreseen, the greatest CSI
would have heavy rain nearly everywhere."""
_PRIOR = 200.0
"""Pixels that the calibration takes to be right as they are."""
_STEEPEST = 4.0
_ROUNDS = 30


def moved_to_events(field: Tensor, logits: Tensor, levels: Tensor, cutoffs: Tensor) -> Tensor:
    """Move a field just so far that its events are those with a chance above the cut-off.

    Args:
        field: `(B, C, H, W)`.
        logits: `(B, Q, C, H, W)`, of the chance to be at or above each level.
        levels: `(Q,)`, rising.
        cutoffs: `(B, Q)`, logits.

    Returns:
        As `field`.
    """
    over = (logits - cutoffs[:, :, None, None, None]) / RAMP + 0.5
    share = over.clamp(0.0, 1.0)  # (B, Q, C, H, W): 1 where the event is forecast
    for level, event in zip(levels.unbind(), share.unbind(1), strict=True):
        above, below = level + MARGIN, level - MARGIN
        field = event * torch.maximum(field, above) + (1 - event) * torch.minimum(field, below)
    return field


def of_lead(table: Tensor, lead: Tensor) -> Tensor:
    """Rows of a table `(K, Q)` by lead time `(B, 1, 1, 1)`, 1 to K; later ones have the last."""
    rows = torch.arange(1, len(table) + 1, dtype=table.dtype, device=table.device)
    # By weights of 0 and 1: an index would have to be made of a float on every engine.
    chosen = (1 - (lead.view(-1, 1).clamp(1.0, float(len(table))) - rows).abs()).clamp(
        min=0.0
    )  # (B, K)
    return (chosen[:, :, None] * table).sum(1)  # (B, Q)


class EventCounts:
    """How often each event came with each forecast chance."""

    def __init__(self, leads: int, levels: int) -> None:
        """Count nothing yet."""
        self.counts = np.zeros((leads, levels, 2, _BINS))
        """`[..., 1, n]` counts pixels with the event in bin n of logits, `[..., 0, n]` others."""

    def add(
        self, lead: int, level: int, logits: NDArray[np.float32], event: NDArray[np.bool_]
    ) -> None:
        """Count pixels `(N,)` of one lead time and level, both from 0."""
        bins = ((logits - _LOW) / (_HIGH - _LOW) * _BINS).clip(0, _BINS - 1).astype(np.int64)
        for happened in (False, True):
            found = np.bincount(bins[event == happened], minlength=_BINS)
            self.counts[lead, level, int(happened)] += found

    def best_cutoffs(self) -> NDArray[np.float32]:
        """`(leads, levels)`, logits: those with the greatest CSI, smoothed over lead times."""
        above = self.counts[..., ::-1].cumsum(-1)[..., ::-1]  # at or above the edge of each bin
        hits, false_alarms = above[:, :, 1], above[:, :, 0]  # (leads, levels, bins)
        events = hits[..., :1]
        csi = hits / np.maximum(events + false_alarms, 1)
        bias = (hits + false_alarms) / np.maximum(events, 1)
        near = self._near
        smooth = np.einsum("kl,lqb->kqb", near, csi)
        smooth[np.einsum("kl,lqb->kqb", near, bias) > _MOST_BIAS] = 0
        good = smooth >= _NEARLY * smooth.max(-1, keepdims=True)
        edges = np.linspace(_LOW, _HIGH, _BINS + 1)[:-1]
        best = np.einsum("kl,lq->kq", near, (good * edges).sum(-1) / good.sum(-1))
        start = np.log(START / (1 - START))
        return np.asarray(np.where(events[..., 0] < _FEWEST, start, best), np.float32)

    def calibration(self) -> NDArray[np.float32]:
        """`(leads, levels, 2)`: factor and addend that make logits those of what happened.

        Logistic regression over the bins but the two outermost, smoothed over lead times.
        """
        step = (_HIGH - _LOW) / _BINS
        x = np.asarray(_LOW + step * (np.arange(_BINS) + 0.5), np.float64)
        inner = np.einsum("kl,lqeb->kqeb", self._near, self.counts)[..., 1:-1]
        line = np.zeros((*inner.shape[:2], 2))
        for place in np.ndindex(line.shape[:2]):
            missed, happened = inner[place]
            line[place] = _platt(x[1:-1], missed, happened)
        return np.asarray(line, np.float32)

    @property
    def _near(self) -> NDArray[np.float64]:
        """`(leads, leads)`: weights of the lead times around each one, their sum is 1."""
        leads = np.arange(len(self.counts))
        near = np.exp(-0.5 * ((leads[:, None] - leads) / _SPREAD) ** 2)
        return np.asarray(near / near.sum(1, keepdims=True))


def _platt(
    x: NDArray[np.float64], missed: NDArray[np.float64], happened: NDArray[np.float64]
) -> tuple[float, float]:
    """Factor and addend of the logits `x` `(bins,)`, by Newton's method."""
    factor, addend = 1.0, 0.0
    if happened.sum() < _FEWEST:
        return factor, addend
    count = missed + happened
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-(factor * x + addend)))
        error, weight = count * chance - happened, count * chance * (1 - chance)
        slope = np.array([error @ x + _PRIOR * (factor - 1), error.sum() + _PRIOR * addend])
        curve = np.array([[weight @ x**2, weight @ x], [weight @ x, weight.sum()]])
        step = np.linalg.solve(curve + _PRIOR * np.eye(2), slope)
        factor = float(np.clip(factor - step[0], 1 / _STEEPEST, _STEEPEST))
        addend = float(addend - step[1])
    return factor, addend


def calibrated(logits: Tensor, line: Tensor) -> Tensor:
    """Chances of events; that of a higher level is never greater.

    Args:
        logits: `(B, Q, C, H, W)`, of levels that rise.
        line: `(B, Q, 2)`, factor and addend.

    Returns:
        As `logits`, 0 to 1.
    """
    factor, addend = line[:, :, None, None, None].unbind(-1)
    found = torch.sigmoid(factor * logits + addend).unbind(1)
    held = [found[0]]
    for chance in found[1:]:
        held.append(torch.minimum(chance, held[-1]))
    return torch.stack(held, dim=1)
