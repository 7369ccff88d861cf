"""What an evaluation says of chances: against climatology, and against flow's neighbourhoods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stpl_core.scores.chances import ChanceScores
from stpl_core.scores.images import Doubles

FlowBrier = Mapping[int, Doubles]
"""Brier scores `(K, Q)` of flow's shares of events in squares of so many pixels."""


def best_of_flow(flow: FlowBrier) -> Doubles | None:
    """The least Brier score of flow's squares at each lead time and threshold, `(K, Q)`.

    The best side is chosen on the very data that are scored, which is in flow's favour.
    """
    return np.fmin.reduce(list(flow.values())) if flow else None


def skill_over_flow(scores: ChanceScores | None, flow: FlowBrier) -> Doubles | None:
    """Brier skill over the best of flow's squares, `(K, Q)`: above 0 the model's chances win."""
    best = best_of_flow(flow)
    if best is None or scores is None:
        return None
    nothing = np.full(best.shape, np.nan)
    return np.asarray(1.0 - np.divide(scores.brier, best, out=nothing, where=best > 0))


def chances_document(scores: ChanceScores, flow: FlowBrier) -> dict[str, Any]:
    """By threshold: Brier score, its skill, ROC area per lead time; reliability and ROC curve."""
    over_flow = skill_over_flow(scores, flow)
    found = []
    for q, threshold in enumerate(scores.thresholds):
        count, forecast, observed = scores.reliability(q)
        chance, false, true, area = scores.roc(q)
        beside: dict[str, Any] = {}
        if over_flow is not None:
            beside = {
                "brier_of_flow": {
                    f"{side}px": brier[:, q].tolist() for side, brier in flow.items()
                },
                "skill_over_flow": over_flow[:, q].tolist(),
            }
        found.append(
            {
                "threshold": threshold,
                "brier": scores.brier[:, q].tolist(),
                "brier_of_climatology": scores.climatology[:, q].tolist(),
                "skill": scores.skill[:, q].tolist(),
                **beside,
                "reliability": {
                    "pixels": count.tolist(),
                    "mean_chance": forecast.tolist(),
                    "observed_frequency": observed.tolist(),
                },
                "roc_area": scores.roc_area[:, q].tolist(),
                "roc": {
                    "area": area,
                    "chance": chance.tolist(),
                    "false_alarm_rate": false.tolist(),
                    "hit_rate": true.tolist(),
                },
            }
        )
    return {"by_threshold": found}
