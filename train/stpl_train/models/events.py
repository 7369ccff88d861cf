"""Events: a value at or above a level. A field that agrees with what is forecast of them.

A field of least squared error shows heavy rain nowhere once its place is uncertain. Here the chance
of each event is forecast beside the field, and the field is moved up to the level where the chance
is above a cut-off, and below it elsewhere. The cut-off of each level and lead time is the one with
the greatest CSI over held-out sequences.
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
"""Pixels with the event below which its cut-off is not fitted."""


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
        leads = np.arange(len(csi))
        near = np.exp(-0.5 * ((leads[:, None] - leads) / _SPREAD) ** 2)
        near /= near.sum(1, keepdims=True)
        smooth = np.einsum("kl,lqb->kqb", near, csi)
        good = smooth >= _NEARLY * smooth.max(-1, keepdims=True)
        edges = np.linspace(_LOW, _HIGH, _BINS + 1)[:-1]
        best = np.einsum("kl,lq->kq", near, (good * edges).sum(-1) / good.sum(-1))
        start = np.log(START / (1 - START))
        return np.asarray(np.where(events[..., 0] < _FEWEST, start, best), np.float32)
