"""Nowcasts against the truth that came later, per lead time, beside persistence."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stpl_core.baselines import persistence
from stpl_core.codec import Array
from stpl_core.files import atomic_file
from stpl_core.metrics import PerLead, mse_per_frame


@dataclass(frozen=True)
class Skill:
    """Squared error summed over a frame, mean over nowcasts, for lead times 1..K."""

    nowcast: PerLead
    persistence: PerLead
    nowcasts: int

    @property
    def beats_persistence(self) -> bool:
        """Whether the nowcast's error is the lower one at every lead time."""
        return bool((self.nowcast < self.persistence).all())

    def rows(self) -> list[list[str]]:
        """Lead time, both errors, and the part of persistence's error that is gone."""
        return [
            [str(k + 1), f"{ours:.2f}", f"{theirs:.2f}", f"{1 - ours / theirs:.0%}"]
            for k, (ours, theirs) in enumerate(zip(self.nowcast, self.persistence, strict=True))
        ]


COLUMNS = ("lead time", "MSE nowcast", "MSE persistence", "error removed")


def score(nowcasts: Sequence[Array], contexts: Sequence[Array], truths: Sequence[Array]) -> Skill:
    """Score nowcasts `(K, C, H, W)` made from `(T, C, H, W)` against what was observed later."""
    forecast, truth = np.stack(nowcasts), np.stack(truths)  # (N, K, C, H, W)
    repeated = persistence(np.stack(contexts), forecast.shape[1])
    return Skill(
        mse_per_frame(forecast, truth), mse_per_frame(repeated, truth), nowcasts=len(forecast)
    )


def save_skill(path: Path, skill: Skill) -> None:
    """Write the table as CSV."""
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *skill.rows()])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
