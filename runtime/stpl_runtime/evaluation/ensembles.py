"""Ensembles in `evaluate`: drawn as `predict --members` draws them, and scored beside."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import prod
from typing import Any

import numpy as np

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import UsageError
from stpl_core.host.memory import require_memory
from stpl_core.scores.ensemble import EnsembleAccumulator, EnsembleScores
from stpl_core.scores.images import Mask
from stpl_runtime.chances import Chances
from stpl_runtime.ensembles.members import members_of
from stpl_runtime.evaluation.subject import Judged

_BAR, _HEIGHT = 14, 90
_FLOAT, _COPIES = 4, 1.5
"""Bytes of a value; members of one sequence, and one lead time of them in double precision."""


class EnsembleJudge:
    """Draws an ensemble of each sequence and adds its scores up; no more than one is in memory."""

    def __init__(self, judged: Judged, members: int) -> None:
        """Nothing yet.

        Args:
            judged: what is judged.
            members: M.

        Raises:
            UsageError: it gives no chances.
            EnvironmentFault: the members of one sequence do not fit into memory.
        """
        if judged.likely is None:
            raise UsageError(
                f"--members {members}, and {judged.name} gives no chances",
                expected="a bundle of a model that does, such as advect",
                fix="stpl-deploy export pretrained:radar-nowcast --out rain.bundle",
            )
        values = members * judged.horizon * prod(judged.frame)
        require_memory(
            _COPIES * _FLOAT * values,
            f"an ensemble of {members} members, {judged.horizon} frames each,",
            "a smaller --members, or --horizon",
        )
        self._codec: FrameCodec = judged.codec
        self._members = members
        self._scores = EnsembleAccumulator(judged.horizon, members)

    def update(
        self,
        start: int,
        frames: Array,
        forecast: Array,
        chances: Chances,
        valid: Mask | None,
    ) -> None:
        """Add some sequences.

        Args:
            start: number of the first one, which decides its noise.
            frames: `(n, T + K, C, H, W)`, physical units.
            forecast: `(n, K, C, H, W)`.
            chances: of its events, values `(n, K, Q, C, H, W)`.
            valid: `(n, H, W)`, True where a pixel counts.
        """
        context = frames.shape[1] - forecast.shape[1]
        for n, (sequence, made) in enumerate(zip(frames, forecast, strict=True)):
            seen = None if valid is None else valid[n]
            drawn = members_of(
                self._codec,
                sequence[:context],
                made,
                Chances(chances.thresholds, chances.values[n]),
                self._members,
                (0, start + n),
                None if seen is None else np.broadcast_to(seen, (context, *seen.shape)),
            )
            self._scores.update(drawn, sequence[context:], seen)

    def result(self) -> EnsembleScores:
        """The scores of all that was added."""
        return self._scores.result()


def ensemble_document(scores: EnsembleScores) -> dict[str, Any]:
    """Per lead time, for JSON."""
    return {
        "members": scores.members,
        "crps": scores.crps.tolist(),
        "spread": scores.spread.tolist(),
        "error_of_mean": scores.error.tolist(),
        "rank_histogram": scores.ranks.tolist(),
    }


def ensemble_rows(
    scores: EnsembleScores, lead: Callable[[int], str], number: Callable[[float], str]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table that the screen and the report show.

    Args:
        scores: of the ensemble.
        lead: a lead time in words.
        number: a score in words.
    """
    ends = scores.ranks[:, [0, -1]]  # (K, 2)
    columns = (scores.crps, scores.spread, scores.error, *ends.T)
    heads = ["lead", "CRPS", "spread", "error of the mean", "below all", "above all"]
    rows = zip(*columns, strict=True)
    return heads, [[lead(k + 1), *map(number, map(float, row))] for k, row in enumerate(rows)]


def ensemble_section(
    scores: EnsembleScores | None,
    units: str,
    lead: Callable[[int], str],
    number: Callable[[float], str],
) -> list[str]:
    """Of the report; nothing where there is no ensemble."""
    if scores is None:
        return []
    heads, rows = ensemble_rows(scores, lead, number)
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    inside = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    even = 1 / (scores.members + 1)
    return [
        "<h2>Ensemble</h2>",
        (
            f"<p>{scores.members} members. CRPS, spread and error of the mean in {escape(units)}; "
            "CRPS is the mean absolute error of a forecast without members, and spread as large as "
            "the error is right. Below and above all: share of pixels whose truth no member "
            f"reaches; {number(even)} each is right.</p>"
        ),
        f'<div class="wide"><table><tr>{top}</tr>{inside}</table></div>',
        (
            "<p>Rank histogram, all lead times together: how many members the truth exceeds. "
            "Level with the line is right.</p>"
        ),
        _histogram(scores),
    ]


def _histogram(scores: EnsembleScores) -> str:
    """Bars, and a line where all would be even."""
    counts = np.nan_to_num(scores.ranks) * scores.pixels[:, None]  # (K, M + 1)
    ranks = counts.sum(axis=0) / max(float(scores.pixels.sum()), 1.0)  # (M + 1,)
    width, scale = _BAR * len(ranks), _HEIGHT / max(float(ranks.max()), 1e-9)
    bars = "".join(
        f'<rect x="{_BAR * n + 1}" y="{_HEIGHT - scale * value:.1f}" width="{_BAR - 2}" '
        f'height="{scale * value:.1f}"><title>{n} members: {100 * value:.2g}%</title></rect>'
        for n, value in enumerate(ranks.tolist())
    )
    even = _HEIGHT - scale / len(ranks)
    return (
        f'<svg role="img" aria-label="Rank histogram" viewBox="0 0 {width} {_HEIGHT}" '
        f'width="{width}" height="{_HEIGHT}" style="max-width: 100%; color: var(--ink)">'
        f'<g fill="#d9622b">{bars}</g><line x1="0" x2="{width}" y1="{even:.1f}" y2="{even:.1f}" '
        'stroke="currentColor" stroke-dasharray="3 3"/></svg>'
    )
