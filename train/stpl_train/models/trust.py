"""How far what was learned is trusted, by lead time: fitted on sequences that training never saw.

Nothing of the moved frame is learned, so it is as good in weather of another kind; what is decoded
from it is not. For each lead time:

- the share g of the learned change of the field that is applied, x + g (field - x), of least
  squared error, from 0 to 1;
- for each event, a logistic regression (Platt 1999) on its logits and on how far the moved frame x
  is above the level. Its addend is left out: how much there is follows from the newest frame.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Doubles = NDArray[np.float64]

_NEAR = 0.1
"""Model units from a level beyond which it makes no difference."""
_LOW, _HIGH, _BINS = -7.0, 5.0, 100
"""Of logits; what lies beyond is not counted."""
_BINS_BESIDE = 17
"""Of how far the moved frame is above the level."""
_SPREAD = 0.25
"""Over which lead times are taken together, a standard deviation of their logarithm: the first ones
differ, later ones hardly."""
_FEWEST = 50
"""Pixels with the event below which its chances stay as they are."""
_PRIOR = 200.0
"""Pixels that say that they are right as they are."""
_FACTORS, _MOST_ADDED = (0.25, 4.0), 8.0
"""Between which the factors of logits lie, and above which none of the moved frame does."""
_ROUNDS, _SMALLEST = 30, 1e-6
"""Of Newton's method, and the part of its step below which none is taken."""


def as_learned(leads: int, levels: int) -> Tensor:
    """The table `(leads, 1 + 2 levels)` of a model that was not fitted.

    By lead time: the share of the field's change; factors of the logits, and of the moved frame.
    """
    table = torch.ones(leads, 1 + 2 * levels)
    table[:, 1 + levels :] = 0.0
    return table


def above(moved: Tensor, levels: Tensor) -> Tensor:
    """How far `(B, C, H, W)` is above levels `(Q,)`, -1 to 1: `(B, Q, C, H, W)`."""
    return ((moved[:, None] - levels.view(1, -1, 1, 1, 1)) / _NEAR).clamp(-1.0, 1.0)


def of_lead(table: Tensor, lead: Tensor) -> Tensor:
    """Rows of a table `(K, N)` by lead time `(B, 1, 1, 1)`, 1 to K; later ones have the last."""
    rows = torch.arange(1, len(table) + 1, dtype=table.dtype, device=table.device)
    # By weights of 0 and 1: an index would have to be made of a float on every engine.
    chosen = (1 - (lead.view(-1, 1).clamp(1.0, float(len(table))) - rows).abs()).clamp(
        min=0.0
    )  # (B, K)
    return (chosen[:, :, None] * table).sum(1)  # (B, N)


def trusted_field(table: Tensor, lead: Tensor, moved: Tensor, field: Tensor) -> Tensor:
    """What was learned of the field, as far as it is trusted.

    Args:
        table: see `as_learned`.
        lead: lead times `(B, 1, 1, 1)`.
        moved: the newest frame, moved, `(B, C, H, W)`.
        field: what was learned of it, as `moved`.

    Returns:
        As `field`.
    """
    share = of_lead(table[:, :1], lead)[..., None, None]  # (B, 1, 1, 1)
    return moved + share * (field - moved)


def trusted_logits(table: Tensor, lead: Tensor, logits: Tensor, beside: Tensor) -> Tensor:
    """What was learned of the events, as far as it is trusted.

    Args:
        table: see `as_learned`.
        lead: lead times `(B, 1, 1, 1)`.
        logits: of the events, `(B, Q, C, H, W)`.
        beside: `above` of the newest frame, moved.

    Returns:
        As `logits`.
    """
    row = of_lead(table[:, 1:], lead)[..., None, None, None]  # (B, 2 Q, 1, 1, 1)
    factors, added = row.chunk(2, dim=1)
    return factors * logits + added * beside


class HeldOut:
    """What came of forecasts of held-out sequences."""

    def __init__(self, leads: int, levels: int) -> None:
        """Nothing yet."""
        self.counts = np.zeros((leads, levels, 2, _BINS, _BINS_BESIDE))
        """Pixels: `[..., 1, n, m]` with the event, of logits in bin n beside a moved frame in bin
        m; `[..., 0, n, m]` without it."""
        self.changes = np.zeros((leads, 2))
        """Of the field: sums of learned change times needed change, and of learned change
        squared."""

    def add(
        self,
        lead: int,
        truth: NDArray[np.float32],
        seen: NDArray[np.bool_] | slice,
        levels: Tensor,
        moved: Tensor,
        field: Tensor,
        logits: Tensor,
    ) -> None:
        """Add what came of a forecast.

        Args:
            lead: from 0.
            truth: `(C, H, W)`.
            seen: where it was observed, `(H, W)`.
            levels: of events, `(Q,)`.
            moved: the moved frame, as `truth`.
            field: what was learned of it, as `truth`.
            logits: of the events, `(Q, C, H, W)`.
        """

        def values(x: Tensor) -> NDArray[np.float32]:
            return np.asarray(x.float().cpu().numpy()[..., seen], np.float32).reshape(len(x), -1)

        true = truth[:, seen].ravel()
        beside = values(above(moved[None], levels)[0])
        self.add_field(lead, values(field - moved).ravel(), true - values(moved).ravel())
        for q, (level, logit) in enumerate(zip(levels.tolist(), values(logits), strict=True)):
            self.add_events(lead, q, logit, beside[q], true >= level)

    def add_events(
        self,
        lead: int,
        level: int,
        logits: NDArray[np.float32],
        beside: NDArray[np.float32],
        event: NDArray[np.bool_],
    ) -> None:
        """Count pixels `(N,)` of one lead time and level, both from 0."""
        n = ((logits - _LOW) / (_HIGH - _LOW) * _BINS).clip(0, _BINS - 1).astype(np.int64)
        m = np.rint((beside + 1) / 2 * (_BINS_BESIDE - 1)).astype(np.int64)
        for happened in (False, True):
            found = np.bincount(
                (n * _BINS_BESIDE + m)[event == happened], minlength=_BINS * _BINS_BESIDE
            )
            self.counts[lead, level, int(happened)] += found.reshape(_BINS, _BINS_BESIDE)

    def add_field(
        self, lead: int, learned: NDArray[np.float32], needed: NDArray[np.float32]
    ) -> None:
        """Add changes `(N,)` of the moved frame's pixels: those learned, and those to the truth."""
        changed = learned.astype(np.float64)
        self.changes[lead] += [changed @ needed, changed @ changed]

    def table(self) -> Tensor:
        """What fits them best; see `as_learned`."""
        leads, levels = self.counts.shape[:2]
        table = as_learned(leads, levels)
        rows = np.log(np.arange(1, leads + 1))
        near = np.exp(-0.5 * ((rows[:, None] - rows) / _SPREAD) ** 2)  # (K, K)
        near /= near.sum(1, keepdims=True)
        needed, learned = (near @ self.changes).T
        share = np.divide(needed, learned, out=np.ones(leads), where=learned > 0)
        table[:, 0] = torch.from_numpy(share.clip(0.0, 1.0))
        # The outermost bins have no middle.
        pixels = np.einsum("kl,lqenm->kqenm", near, self.counts)[..., 1:-1, :]
        for k, q in np.ndindex(leads, levels):
            factor, added = _regression(*pixels[k, q])
            table[k, 1 + q], table[k, 1 + levels + q] = factor, added
        return table


def together(parts: list[HeldOut]) -> HeldOut:
    """Several, each with the same weight."""
    made = HeldOut(*parts[0].counts.shape[:2])
    for part in parts:
        most = part.changes[:, 1:]  # (K, 1)
        made.counts += part.counts * (parts[0].counts.sum() / part.counts.sum())
        none = np.zeros_like(part.changes)
        made.changes += np.divide(part.changes, most, out=none, where=most > 0)
    return made


def _regression(missed: Doubles, happened: Doubles) -> tuple[float, float]:
    """Factors of logits and moved frame for pixels in bins of both, `(bins, bins beside)`."""
    if happened.sum() < _FEWEST:
        return 1.0, 0.0
    logit = _LOW + (_HIGH - _LOW) / _BINS * (np.arange(1, _BINS - 1) + 0.5)
    beside = np.linspace(-1, 1, _BINS_BESIDE)
    parts = np.broadcast_arrays(logit[:, None], 1.0, beside)
    x = np.stack(parts, axis=-1).reshape(-1, 3)
    events, count = happened.ravel(), (missed + happened).ravel()
    factor, _, added = _newton(x, events, count)
    if added <= 0:  # it never speaks against an event
        (factor, _), added = _newton(x[:, :2], events, count), 0.0
    return float(np.clip(factor, *_FACTORS)), float(min(added, _MOST_ADDED))


def _newton(x: Doubles, events: Doubles, count: Doubles) -> Doubles:
    """Coefficients of a logistic regression on `x` `(N, P)`, the first of which is 1 beforehand."""
    start: Doubles = np.eye(x.shape[1])[0]

    def surprise(line: Doubles) -> float:
        found = x @ line
        likely = count @ np.logaddexp(0, found) - events @ found
        return float(likely + 0.5 * _PRIOR * ((line - start) ** 2).sum())

    line: Doubles = start
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-(x @ line)))
        slope = x.T @ (count * chance - events) + _PRIOR * (line - start)
        weight = count * chance * (1 - chance)
        curve = (x * weight[:, None]).T @ x + _PRIOR * np.eye(len(line))
        step, size = np.linalg.solve(curve, slope), 1.0
        while surprise(line - size * step) > surprise(line) and size > _SMALLEST:
            size /= 2
        line = line - size * step
    return line
