"""A run is judged by its own forecasts, a bundle as the run it came from."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stpl_core.baselines import persistence
from stpl_core.errors import RunError
from stpl_core.metrics import mse_per_frame
from stpl_deploy.cli import run
from stpl_deploy.judging import open_judged
from stpl_runtime.evaluation.evaluate import MODEL, evaluate
from stpl_runtime.evaluation.subject import Backend, read_material
from stpl_train.run import open_run, save_validation

pytest.importorskip("cv2", reason="OpenCV is in the extra evaluate")

DATA = Path(__file__).parents[1] / "data"
RUN, BUNDLE = DATA / "modernn-mini", DATA / "modernn-mini.bundle"


def test_a_runs_scores_are_those_of_its_own_forecasts() -> None:
    judged = open_judged(RUN)
    found = evaluate(judged, judged.own())
    sequences = open_run(RUN).validation()
    truth = sequences[:, 10:]
    np.testing.assert_allclose(
        found.scores[MODEL].per_lead["mse"],
        mse_per_frame(judged.forecast(sequences[:, :10]), truth),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        found.scores["persistence"].per_lead["mse"],
        mse_per_frame(persistence(sequences[:, :10], 10), truth),
        rtol=1e-6,
    )
    assert list(found.scores) == [MODEL, "persistence", "flow"]
    mse = {name: scores.overall["mse"] for name, scores in found.scores.items()}
    assert mse[MODEL] < mse["flow"] < mse["persistence"]
    # The metrics that training wrote were of four times as many sequences.
    with (RUN / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert mse[MODEL] == pytest.approx(float(last["mse"]), rel=0.25)


def test_a_bundle_scores_as_the_run_it_came_from(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", open_run(RUN).validation()[:3])
    results = []
    for path in (RUN, BUNDLE):
        judged = open_judged(path, backend=Backend(threads=1))
        material = read_material(tmp_path / "some.npy", judged)
        results.append(evaluate(judged, material, baselines=["persistence"]))
    run, bundle = (result.scores for result in results)
    assert run["persistence"].overall == pytest.approx(bundle["persistence"].overall, nan_ok=True)
    np.testing.assert_allclose(run[MODEL].per_lead["mse"], bundle[MODEL].per_lead["mse"], rtol=1e-3)
    assert "onnx" in results[1].judged.how


def test_a_runs_own_sequences_keep_what_was_observed(run_maker: Any) -> None:
    path = run_maker("convlstm")  # 3 in, 3 out, 8x8, four sequences
    assert open_judged(path).own().valid is None
    observed = np.ones((4, 6, 8, 8), bool)
    observed[1, 5, 0] = False
    save_validation(path, open_run(path).validation(), observed)
    valid = open_judged(path).own().valid
    np.testing.assert_array_equal(valid, observed[:, 5])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        open_judged(tmp_path)


def test_the_provider_that_a_run_needs_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    def evaluated(*options: str, code: int) -> str:
        assert run(["evaluate", str(RUN), "--baseline", "persistence", *options]) == code
        return capsys.readouterr().err

    evaluated("--require-provider", "cpu", code=0)
    refusal = evaluated("--require-provider", "cuda", code=4)
    assert "runs in PyTorch on the CPU" in refusal
    assert "stpl-deploy export" in refusal
    assert "--engine onnx-cuda for the run" in evaluated("--engine", "onnx-cuda", code=2)
    assert "--grid for the run" in evaluated("--grid", "64x64", "--part", "test", code=2)
