"""Chances in `evaluate`: beside climatology, beside flow's neighbourhoods, and their ROC."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from stpl_core.baselines import flow
from stpl_core.scores.neighbourhood import neighbourhood_chances
from stpl_runtime.chances import Chances
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.report import html_report
from stpl_runtime.evaluation.subject import Judged, Material

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

from tests.runtime.evaluation.test_evaluate import moving_rain, rain_judge

LIMITS = (1.0, 5.0)


def with_chances(side: int) -> Judged:
    """Its forecast is flow, and its chances are the shares of events in squares of flow's."""

    def likely(past: np.ndarray) -> tuple[np.ndarray, Chances]:
        made = flow(past, 3, "mm h-1")
        chances = [
            [neighbourhood_chances(made[:, k], limit, side) for limit in LIMITS] for k in range(3)
        ]  # [K][Q] of (N, C, H, W)
        values = np.moveaxis(np.array(chances, np.float32), 2, 0)  # (N, K, Q, C, H, W)
        return made, Chances(LIMITS, values)

    return replace(rain_judge(), likely=likely)


def test_chances_beside_those_of_flows_neighbourhoods() -> None:
    material = Material("made", moving_rain())
    found = evaluate(with_chances(5), material, thresholds=[5.0], scales=[5, 15])
    document = json.loads(json.dumps(found.document()))["chances"]["by_threshold"]
    for q, one in enumerate(document):
        assert one["threshold"] == LIMITS[q]
        assert list(one["brier_of_flow"]) == ["5px", "15px"]
        # The very same chances: no better and no worse, wherever the narrow square is the best.
        np.testing.assert_allclose(one["brier"], one["brier_of_flow"]["5px"], rtol=1e-6)
        best = np.minimum(one["brier_of_flow"]["5px"], one["brier_of_flow"]["15px"])
        skill = 1 - np.array(one["brier"]) / best
        np.testing.assert_allclose(one["skill_over_flow"], skill, atol=1e-6)
        assert min(one["roc_area"]) > 0.9
        roc = one["roc"]
        assert (roc["false_alarm_rate"][0], roc["hit_rate"][0]) == (0, 0)
        assert (roc["false_alarm_rate"][-1], roc["hit_rate"][-1]) == (1, 1)
        assert np.diff(roc["hit_rate"]).min() >= 0
    page = html_report(found)
    for words in ("Brier skill score over flow", "squares of 5, 15 pixels", "ROC of chances"):
        assert words in page
    alone = evaluate(with_chances(5), material, thresholds=[5.0], baselines=["persistence"])
    assert "skill_over_flow" not in alone.document()["chances"]["by_threshold"][0]
    assert "over flow" not in html_report(alone)


def test_fss_is_a_table_of_scales_by_lead_times() -> None:
    found = evaluate(rain_judge(), Material("made", moving_rain()), thresholds=[5.0], scales=[5, 9])
    page = html_report(found)
    rows = page[page.index("Fractions skill score, by scale") :].partition("</table>")[0]
    assert "<th>+5 min</th><th>+10 min</th><th>+15 min</th>" in rows
    for scale in (5, 9):
        values = found.scores["flow"].per_lead[f"fss_5_{scale}px"]
        cells = "".join(f"<td>{value:.4g}</td>" for value in values)
        assert f"<td>{scale} px, flow</td>{cells}" in rows
