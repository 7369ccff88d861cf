"""Events: a value at or above a level. A field that agrees with what is forecast of them.

A field of least squared error shows heavy rain nowhere once its place is uncertain. Here the chance
of each event is forecast beside the field, and the field is moved up to the level where the chance
is above a cut-off, and below it elsewhere.

How much of the frame has an event is better known than where: it was seen in the newest frame, and
changes slowly as that moves (Germann and Zawadzki 2002 call it Lagrangian persistence). So the
cut-off is the one by which the event covers as large a share as it does in the moved frame, also
where nothing was seen move in; and the chances are shifted so that as much is expected as there was
before it moved. Weather of another kind than that of the training makes a model too sure or too
timid, and this takes most of it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stpl_train.models.motion import resized, window_mean

RAMP = 0.25
"""Logits over which a pixel goes from below a level to above it: with a step, a rounding would."""
MARGIN = 1e-3
"""By how much the field is moved beyond a level, model units."""
_SLOPE = 0.01
"""Model units below a level from which a value comes to count, for the same reason."""
EXACT = 1e-3
"""The same, finer than the steps in which radars give values."""
_FURTHEST = 3.0
"""Logits by which chances are shifted at most: what is nowhere in the newest frame can begin."""
_HIGHEST = 12.0
"""Of cut-offs, logits."""
_SIDE = 5
"""Of the box of patches, taken twice, that is around a place."""
_AROUND = 0.5
"""How much of a chance is that of the places around, at the last lead time."""
_ANYWHERE = 0.4
"""How much of the chance of a rare event is the same everywhere, at the last lead time."""
_RARE, _COMMON = 0.01, 0.04
"""Shares of the frame up to which an event is rare, and from which on it is not."""
_SUREST = 1e-6
"""No chance is nearer to 0 or 1."""
HALVINGS = 20
"""Rounds in which a cut-off is found, to a hundred-thousandth of a logit."""


def events_in(frame: Tensor, levels: Tensor, slope: float = _SLOPE) -> Tensor:
    """1 where a frame `(B, C, H, W)` is at or above levels `(Q,)`, else 0: `(B, Q, C, H, W)`.

    A value less than `slope` below a level counts in part.
    """
    return ((frame[:, None] - levels.view(1, -1, 1, 1, 1)) / slope + 1).clamp(0.0, 1.0)


class Around(nn.Module):
    """Chances that take in those of the places around, the more, the later.

    Where an event will be is less and less sure, and a model that was trained on other weather
    knows too little of that (Theis, Hense and Damrath 2005 take the chance of a place from those
    around it). Half of them at the last lead time: with more, chances become too timid.
    """

    inside: Tensor

    def __init__(self, size: tuple[int, int], patch: int, horizon: int) -> None:
        """For maps of `size` patches, and lead times up to `horizon`."""
        super().__init__()
        self.patch, self.last = patch, float(max(horizon - 1, 1))
        ones = window_mean(torch.ones(1, 1, *size), _SIDE)
        self.register_buffer("inside", ones, persistent=False)

    def forward(self, logits: Tensor, lead: Tensor) -> Tensor:
        """As logits `(B, Q, C, H, W)`, at lead times `(B, 1, 1, 1)`."""
        chances = torch.sigmoid(logits).flatten(1, 2)  # (B, Q*C, H, W)
        means = window_mean(F.avg_pool2d(chances, self.patch), _SIDE) / self.inside
        around = resized(means, *chances.shape[2:])
        share = _AROUND * ((lead - 1) / self.last).clamp(0.0, 1.0)
        chances = (chances + share * (around - chances)).clamp(_SUREST, 1 - _SUREST)
        made: Tensor = (chances / (1 - chances)).log().unflatten(1, logits.shape[1:3])
        return made


def shift_of_chances(logits: Tensor, areas: Tensor, inside: Tensor) -> Tensor:
    """What to add to logits `(B, Q, C, H, W)` so that the chances amount to `areas` `(B, Q)`."""

    def too_much(shift: Tensor) -> Tensor:
        return share_inside(torch.sigmoid(logits + _of_each(shift)), inside) - areas

    return _root(too_much, torch.zeros_like(areas), _FURTHEST)


def cutoffs_of_areas(
    logits: Tensor, areas: Tensor, known: Tensor, ramp: Tensor | float = RAMP
) -> Tensor:
    """The cut-offs `(B, Q)` above which `areas` of what can be observed lie, logits.

    Args:
        logits: `(B, Q, C, H, W)`.
        areas: `(B, Q)`.
        known: `(B, 1, H, W)`, 1 where the newest frame was observed, else 0.
        ramp: logits over which a pixel comes to have an event; a number or `(B, 1, H, W)`.
    """

    def too_little(cutoff: Tensor) -> Tensor:
        return areas - share_inside(_called(logits, cutoff, ramp), known)

    return _root(too_little, torch.zeros_like(areas), _HIGHEST)


def share_inside(part: Tensor, inside: Tensor) -> Tensor:
    """The mean of `(B, Q, C, H, W)` over what is inside, `(B, Q)`; 0 where nothing is.

    Args:
        part: 0 to 1: whether there is each event, or its chance.
        inside: `(B, 1, H, W)`, how much a pixel counts: 0 where it does not come from within the
            frame, else 1, or as much as it stands for.
    """
    weight = inside[:, None]  # (B, 1, 1, H, W)
    most = weight.sum((2, 3, 4)) * part.shape[2]
    return (part * weight).sum((2, 3, 4)) / most.clamp(min=1.0)


def _root(rising: Callable[[Tensor], Tensor], middle: Tensor, reach: float) -> Tensor:
    """Where a rising function is 0, within `reach` of `middle`, by halving; the greatest such."""
    for _ in range(HALVINGS):
        reach /= 2
        middle = torch.where(rising(middle) > 0, middle - reach, middle + reach)
    return middle


def _of_each(values: Tensor) -> Tensor:
    """`(B, Q)` for every pixel, `(B, Q, 1, 1, 1)`."""
    return values[:, :, None, None, None]


def _called(logits: Tensor, cutoffs: Tensor, ramp: Tensor | float) -> Tensor:
    """1 where an event is forecast, 0 where it is not, `(B, Q, C, H, W)`."""
    wide = ramp[:, None] if isinstance(ramp, Tensor) else ramp  # (B, 1, 1, H, W)
    return ((logits - _of_each(cutoffs)) / wide + 0.5).clamp(0.0, 1.0)


def moved_to_events(
    field: Tensor, logits: Tensor, levels: Tensor, cutoffs: Tensor, ramp: Tensor | float = RAMP
) -> Tensor:
    """Move a field just so far that its events are those with a chance above the cut-off.

    Args:
        field: `(B, C, H, W)`.
        logits: `(B, Q, C, H, W)`, of the chance to be at or above each level.
        levels: `(Q,)`, rising.
        cutoffs: `(B, Q)`, logits.
        ramp: as for `cutoffs_of_areas`.

    Returns:
        As `field`.
    """
    share = _called(logits, cutoffs, ramp)  # (B, Q, C, H, W)
    # Nothing is beyond a codec's range; there, the smallest change of a share would be a large one.
    field = field.clamp(max=1.0)
    for level, event in zip(levels.unbind(), share.unbind(1), strict=True):
        above, below = level + MARGIN, level - MARGIN
        field = event * torch.maximum(field, above) + (1 - event) * torch.minimum(field, below)
    return field


def share_anywhere(areas: Tensor, lead: Tensor, horizon: int) -> Tensor:
    """How much of the chance of events is to be the same everywhere, `(B, Q)`.

    What is rare comes in small cells, which live for half an hour (Germann and Zawadzki 2002);
    those that come after them begin elsewhere. So nothing in the first half of the lead times,
    then ever more.

    Args:
        areas: the share of the frame that has each event, `(B, Q)`.
        lead: lead times `(B, 1, 1, 1)`, from 1.
        horizon: the last of them.
    """
    middle = horizon / 2 + 1
    late = ((lead - middle) / max(horizon - middle, 0.5)).clamp(0.0, 1.0).view(-1, 1)  # (B, 1)
    beyond = math.log(_COMMON) - areas.clamp(min=_SUREST).log()
    return _ANYWHERE * late * (beyond / math.log(_COMMON / _RARE)).clamp(0.0, 1.0)


def chances_of(logits: Tensor, areas: Tensor, anywhere: Tensor) -> Tensor:
    """Chances of events whose levels rise: that of a higher one is no greater.

    Args:
        logits: `(B, Q, C, H, W)`.
        areas: the share of the frame that has each event, `(B, Q)`: its chance anywhere.
        anywhere: how much of a chance is that, `(B, Q)`, 0 to 1.

    Returns:
        As `logits`.
    """
    here = torch.sigmoid(logits)
    found = (here + _of_each(anywhere) * (_of_each(areas) - here)).unbind(1)
    held = [found[0]]
    for chance in found[1:]:
        held.append(torch.minimum(chance, held[-1]))
    return torch.stack(held, dim=1)
