"""What was not observed is kept from the run to the bundle, and counts in no score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stpl_core.bundle import Bundle, open_bundle
from stpl_deploy.judging import open_judged
from stpl_export.export import export_run
from stpl_runtime.evaluation.evaluate import MODEL, evaluate
from stpl_runtime.proof.reference import load_reference
from stpl_train.run import open_run, save_validation
from tests.export.conftest import RunMaker

DATA = Path(__file__).parents[1] / "data"


def unseen(frames: np.ndarray) -> np.ndarray:
    """`(N, T + K, H, W)`: the left third is never observed, some pixels now and then not."""
    observed = np.random.default_rng(1).random((*frames.shape[:2], *frames.shape[3:])) < 0.97
    observed[..., : frames.shape[-1] // 3] = False
    return observed


@pytest.fixture
def run(run_maker: RunMaker) -> Path:
    path = run_maker("convlstm", side=12)
    frames = open_run(path).validation()
    save_validation(path, frames, unseen(frames))
    return path


def test_a_bundle_scores_what_was_observed_as_its_run_does(run: Path, tmp_path: Path) -> None:
    bundle = export_run(run, tmp_path / "bundle")
    frames = open_run(run).validation()
    kept = load_reference(bundle).observed
    np.testing.assert_array_equal(kept, unseen(frames))
    scores = []
    for path in (run, bundle.path):
        judged = open_judged(path)
        found = evaluate(judged, judged.own(), baselines=["persistence"]).scores
        scores.append({name: one.per_lead["mse"] for name, one in found.items()})
    for name, mse in scores[0].items():
        np.testing.assert_allclose(scores[1][name], mse, rtol=1e-5)
    # By hand: pixels that were observed in every frame of their sequence.
    judged = open_judged(bundle.path)
    gap = judged.forecast(frames[:, :3]) - frames[:, 3:]  # the codec leaves [0, 1] as it is
    counted = np.broadcast_to(unseen(frames).all(axis=1)[:, None, None], gap.shape)
    mean = np.square(gap).sum(axis=(2, 3, 4), where=counted).mean(axis=0)
    np.testing.assert_allclose(scores[1][MODEL], mean, rtol=1e-5)
    whole = np.square(gap).sum(axis=(2, 3, 4)).mean(axis=0)
    assert not np.allclose(scores[1][MODEL], whole, rtol=1e-3)


def changes(bundle: Bundle) -> list[float]:
    report = bundle.manifest.accuracy
    assert report is not None
    return [lead.mse_change for check in report.checks for lead in check.leads]


def test_junk_that_was_not_observed_changes_no_verdict(run: Path, tmp_path: Path) -> None:
    before = changes(export_run(run, tmp_path / "before"))
    frames = open_run(run).validation()
    observed = unseen(frames)
    future = np.arange(frames.shape[1])[:, None, None] >= 3
    junk = np.where((future & ~observed)[:, :, None], np.float32(1.0), frames)
    assert not np.array_equal(junk, frames)
    save_validation(run, junk, observed)
    assert changes(export_run(run, tmp_path / "after")) == pytest.approx(before, abs=1e-12)


def test_data_for_the_check_may_say_what_was_observed(run: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(2).random((2, 8, 1, 12, 12), dtype=np.float32)
    np.savez(tmp_path / "d.npz", frames=frames, observed=unseen(frames))
    bundle = export_run(run, tmp_path / "bundle", data=tmp_path / "d.npz")
    np.testing.assert_array_equal(load_reference(bundle).observed, unseen(frames)[:, :6])


@pytest.mark.parametrize("name", ["modernn-mini.bundle", "convlstm-tiny.bundle"])
def test_older_bundles_have_seen_everything(name: str) -> None:
    assert load_reference(open_bundle(DATA / name)).observed is None
    assert open_judged(DATA / name).own().valid is None
