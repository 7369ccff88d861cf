"""`evaluate --members`: the ensemble that `predict` draws, scored as the library `scores` does."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from stpl_core.baselines import persistence
from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import UsageError
from stpl_runtime.chances import Chances
from stpl_runtime.ensembles.members import members_of
from stpl_runtime.evaluation.evaluate import evaluate
from stpl_runtime.evaluation.report import html_report
from stpl_runtime.evaluation.subject import Judged, Material

RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=60.0, kind="db", clip=True)
THRESHOLDS = (0.1, 1.0, 5.0)
PAST, AHEAD, SIDE = 3, 2, 24


def likely(past: Array) -> tuple[Array, Chances]:
    """Persistence; a chance is less the higher the threshold is above the newest value."""
    frames = np.array(persistence(past, AHEAD))  # (N, K, C, H, W)
    over = np.stack([frames / (frames + threshold) for threshold in THRESHOLDS], axis=2)
    return frames, Chances(THRESHOLDS, over.astype(np.float32))


def rain(count: int) -> Array:
    draw = np.random.default_rng(2)
    return draw.gamma(0.4, 4, (count, PAST + AHEAD, 1, SIDE, SIDE)).clip(0, 60).astype(np.float32)


def judge() -> Judged:
    return Judged(
        name="hazy", how="numpy", context=PAST, horizon=AHEAD, frame=(1, SIDE, SIDE), codec=RAIN,
        cadence_s=300.0, forecast=lambda past: likely(past)[0], likely=likely,
        own=lambda: Material("nothing", rain(1)),
    )  # fmt: skip


def test_the_ensemble_is_scored_as_scores_does(monkeypatch: pytest.MonkeyPatch) -> None:
    xr, theirs = pytest.importorskip("xarray"), pytest.importorskip("scores.probability")
    frames, valid = rain(3), np.random.default_rng(1).random((3, SIDE, SIDE)) < 0.8
    # One sequence at a time: the noise does not depend on how they are cut into blocks.
    monkeypatch.setattr("stpl_runtime.evaluation.evaluate._BATCH_VALUES", 1)
    found = evaluate(judge(), Material("made", frames, valid), baselines=[], members=4)
    drawn = []
    for n, sequence in enumerate(frames):
        made, chances = likely(sequence[None, :PAST])
        one = Chances(THRESHOLDS, chances.values[0])
        seen = np.broadcast_to(valid[n], (PAST, SIDE, SIDE))
        drawn.append(members_of(RAIN, sequence[:PAST], made[0], one, 4, (0, n), seen))
    document = found.document()["ensemble"]
    assert document["members"] == 4
    for k in range(AHEAD):
        every = zip(drawn, frames, valid, strict=True)
        parts = [(one[:, k, 0][:, seen], real[PAST + k, 0][seen]) for one, real, seen in every]
        forecast, truth = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        pair = xr.DataArray(forecast, dims=("m", "p")), xr.DataArray(truth, dims="p")
        expected = float(theirs.crps_for_ensemble(*pair, "m", method="ecdf"))
        assert document["crps"][k] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(
            document["rank_histogram"][k], theirs.rank_histogram(*pair, "m"), atol=1e-9
        )
    json.dumps(document, allow_nan=False)


def test_the_report_has_ranks_and_a_number_for_each_lead_time() -> None:
    pytest.importorskip("matplotlib")
    found = evaluate(judge(), Material("made", rain(2)), baselines=[], members=3)
    page = html_report(found)
    assert "3 members. CRPS" in page
    assert len(re.findall(r"<title>\d members: ", page)) == 4
    assert found.ensemble is not None
    assert f"<td>{found.ensemble.crps[1]:.4g}</td>" in page
    plain = html_report(evaluate(judge(), Material("made", rain(2)), baselines=[]))
    assert "Rank histogram" not in plain
    assert "ensemble" not in evaluate(judge(), Material("made", rain(2)), baselines=[]).document()


def test_without_chances_there_is_no_ensemble_to_score() -> None:
    with pytest.raises(UsageError, match="--members 3, and hazy gives no chances"):
        evaluate(replace(judge(), likely=None), Material("made", rain(1)), members=3)
