"""How far the scores of an evaluation, and their differences, would differ on other storms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stpl_core.scores.accumulator import CURVES, FRAMES, Accumulator, Scores
from stpl_core.scores.blocks import (
    FEWEST,
    LEVEL,
    BlockSums,
    Draws,
    Interval,
    Intervals,
    Labels,
    Sums,
    blocks_by_time,
    drawn,
    intervals,
    joined,
)
from stpl_runtime.evaluation.subject import Material

COUNTS = (FRAMES, "observed")
"""Kinds of scores that only say how much was scored."""


@dataclass(frozen=True)
class Spread:
    """Intervals of scores and of differences; see `stpl_core.scores.blocks`."""

    blocks: int
    about: str
    """What a block is, in words."""
    of_scores: Mapping[str, Intervals] = field(default_factory=dict)
    """By forecaster; empty where there are too few blocks."""
    of_differences: Mapping[str, Intervals] = field(default_factory=dict)
    """Of the model less every other forecaster that was scored on the same pixels."""

    @property
    def known(self) -> bool:
        """Whether there are blocks enough for intervals."""
        return self.blocks >= FEWEST

    @property
    def text(self) -> str:
        """How many blocks there are, and whether that will do."""
        if self.known:
            return f"Intervals of {LEVEL:.0%} over {self.blocks} blocks: {self.about}."
        few = f"{self.blocks} block{'' if self.blocks == 1 else 's'}"
        return (
            f"{few} ({self.about}): too few to tell a difference from chance; an interval takes "
            f"{FEWEST} at least, and is better with 20."
        )

    def document(self) -> dict[str, Any]:
        """What the intervals stand on, as JSON."""
        return {
            "count": self.blocks,
            "about": self.about,
            "level": LEVEL,
            "least": FEWEST,
            "enough": self.known,
        }

    def scores_document(self, way: str) -> dict[str, Any]:
        """`interval` of a forecaster: `mean` and `per_lead` -> score -> `low` and `high`."""
        found = self.of_scores.get(way)
        if found is None:
            return {}
        return {
            "interval": {
                "mean": {name: _ends(one) for name, one in found.overall.items()},
                "per_lead": {name: _ends(one) for name, one in found.per_lead.items()},
            }
        }

    def differences_document(self, scores: Mapping[str, Scores], model: str) -> dict[str, Any]:
        """`differences` -> forecaster -> as `interval`, with the `difference` itself."""
        made = {}
        for way, found in self.of_differences.items():
            ours, theirs = scores[model], scores[way]
            made[way] = {
                "mean": {
                    name: {"difference": ours.overall[name] - theirs.overall[name], **_ends(one)}
                    for name, one in found.overall.items()
                },
                "per_lead": {
                    name: {
                        "difference": (ours.per_lead[name] - theirs.per_lead[name]).tolist(),
                        **_ends(one),
                    }
                    for name, one in found.per_lead.items()
                },
            }
        return {"differences": made} if made else {}


def _ends(one: Interval) -> dict[str, Any]:
    return {"low": one.low.tolist(), "high": one.high.tolist()}


class SpreadSums:
    """Adds up the sums of each forecaster, by block."""

    def __init__(self, material: Material, ways: Sequence[str]) -> None:
        """Start from nothing.

        Args:
            material: the sequences.
            ways: names of the forecasters, the model's first.
        """
        labels, self._about = _labels(material)
        self.labels: Labels = joined(labels)
        """`(N,)`, the block of each sequence."""
        self._count = int(self.labels.max()) + 1
        self._sums = {way: BlockSums(self._count) for way in ways}

    def add(self, way: str, block: int, sums: Sums) -> None:
        """Add the sums of some sequences of a block."""
        if self._count >= FEWEST:
            kept = {name: values for name, values in sums.items() if name not in CURVES}
            self._sums[way].add(block, kept)

    def result(self, whole: Mapping[str, Accumulator]) -> Spread:
        """The intervals; `whole` has the sums of all blocks together."""
        if self._count < FEWEST:
            return Spread(self._count, self._about)
        counts = drawn(self._count)
        draws = {
            way: _scores_alone(sums.draws(whole[way].scores_of, counts))
            for way, sums in self._sums.items()
        }
        model, *others = self._sums
        # The same draws for both: what is hard for both is in neither's favour.
        return Spread(
            self._count,
            self._about,
            {way: intervals(one) for way, one in draws.items()},
            {
                way: intervals(draws[model].less(draws[way]))
                for way in others
                if _same_pixels(whole[model], whole[way])
            },
        )


def by_block(rows: slice, labels: Labels) -> list[tuple[int, Labels]]:
    """The blocks among some rows, and which of these rows are in each."""
    here = labels[rows]
    return [(int(block), np.flatnonzero(here == block)) for block in np.unique(here)]


def _labels(material: Material) -> tuple[Labels, str]:
    """Block of each sequence, and what a block is."""
    times = material.times
    if times is not None and not np.isnat(times).any():
        return blocks_by_time(
            times
        ), "stretches of time six hours apart, cut at midnight where they are long"
    if material.longer is not None:
        return material.longer, "whole sequences, which state no time"
    return np.arange(len(material.frames)), "sequences that state no time, taken as independent"


def _scores_alone(draws: Draws) -> Draws:
    """Without those of `COUNTS`."""

    def kept(found: dict[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in found.items() if name.partition("_")[0] not in COUNTS}

    return Draws(kept(draws.per_lead), kept(draws.overall))


def _same_pixels(one: Accumulator, other: Accumulator) -> bool:
    """Whether both were scored on as many pixels at every lead time: `day` may lack frames."""
    return bool((one.sums["pixels"] == other.sums["pixels"]).all())
