"""The seconds between frames, learned from their times."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stpl_runtime.timing import TOLERANCE

ENOUGH, MOST = 3, 5
"""Distinct times from which a cadence is learned, and after which the smallest step is taken."""
_EXACT = 0.1
"""How far from a whole number a step may be that is counted in parts of the smallest one."""
_PART, _AGREEING = 0.06, 3
"""How near to a fraction frames between the slots must lie, and how many of them decide."""
_PARTS = 4
"""A cadence is sought down to this part of the smallest step."""


def learned_cadence(times: Sequence[datetime], *, last: bool = False) -> float | None:
    """The longest step of which every step between the times is a multiple, seconds.

    Frames may be missing between the times, and some jitter is evened out.

    Args:
        times: distinct, in any order.
        last: give the smallest step where no common one is found.

    Returns:
        None where there is none.
    """
    ordered = sorted(times)
    steps = [(b - a).total_seconds() for a, b in itertools.pairwise(ordered)]
    if not steps:
        return None
    for parts in range(1, _PARTS + 1):
        unit = min(steps) / parts
        counts = [round(step / unit) for step in steps]
        away = max(abs(step / unit - n) for step, n in zip(steps, counts, strict=True))
        if away <= (TOLERANCE if parts == 1 else _EXACT / max(counts)):
            return sum(steps) / sum(counts)
    return min(steps) if last else None


@dataclass
class Between:
    """Frames at a regular fraction between the slots: the cadence was learned too long."""

    parts: int = 0
    """Into so many the last of them divides the cadence."""
    count: int = 0
    """So many in a row agree on that."""
    fitted: bool = False
    """Whether a frame in a slot came after the last of them."""

    def fits(self) -> None:
        """A frame came that lies in a slot."""
        self.fitted = True

    def add(self, offset: float) -> int:
        """A frame lies `offset` slots after the phase.

        Returns:
            In how many parts the cadence falls; 0 where it does not. Three such frames, each with
            one in a slot before it, decide; all frames between the slots are another phase.
        """
        parts = next((n for n in (2, 3, 4) if abs(offset * n - round(offset * n)) <= _PART), 0)
        agrees = parts != 0 and parts == self.parts and self.fitted
        self.count = self.count + 1 if agrees else 1
        self.parts, self.fitted = parts, False
        return parts if parts and self.count >= _AGREEING else 0
