"""Brier score, reliability and ROC, against scikit-learn's and their own definitions."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.scores.chances import BINS, ChanceAccumulator


def made(seed: int = 0) -> tuple[np.ndarray, ...]:
    """Chances `(N, K, Q, C, H, W)`, truth `(N, K, C, H, W)`, valid `(N, H, W)`."""
    random = np.random.default_rng(seed)
    chances = random.random((3, 2, 2, 1, 9, 7)).astype(np.float32)
    truth = random.random((3, 2, 1, 9, 7)).astype(np.float32) * 4
    return chances, truth, random.random((3, 9, 7)) < 0.7


def test_the_brier_score_is_the_mean_square_of_what_counts() -> None:
    chances, truth, valid = made()
    sums = ChanceAccumulator(2, (1.0, 3.0))
    sums.update(chances[:2], truth[:2], valid[:2])
    sums.update(chances[2:], truth[2:], valid[2:])  # in parts, as at once
    found = sums.result()
    for k in range(2):
        for q, threshold in enumerate((1.0, 3.0)):
            likely = chances[:, k, q, 0][valid].astype(float)
            event = (truth[:, k, 0] >= threshold)[valid]
            assert found.brier[k, q] == pytest.approx(np.mean((likely - event) ** 2))
            assert found.climatology[k, q] == pytest.approx(np.mean((event.mean() - event) ** 2))
    np.testing.assert_allclose(found.skill, 1 - found.brier / found.climatology)


def test_brier_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chances, truth, _ = made(1)
    sums = ChanceAccumulator(2, (1.0, 3.0))
    sums.update(chances, truth)
    event = truth[:, 1, 0].ravel() >= 3.0
    expected = metrics.brier_score_loss(event, chances[:, 1, 1, 0].ravel())
    assert sums.result().brier[1, 1] == pytest.approx(expected)


def test_chances_that_are_right_lie_on_the_diagonal_and_others_do_not() -> None:
    random = np.random.default_rng(2)
    chance = random.random((1, 1, 1, 1, 300, 300)).astype(np.float32)
    event = (random.random((1, 1, 1, 300, 300)) < chance[:, :, 0]).astype(np.float32)
    sums = ChanceAccumulator(1, (0.5,))
    sums.update(chance, event)
    count, forecast, observed = sums.result().reliability(0)
    assert count.sum() == 300 * 300
    np.testing.assert_allclose(forecast, (np.arange(BINS) + 0.5) / BINS, atol=0.01)
    np.testing.assert_allclose(observed, forecast, atol=0.02)
    sure = ChanceAccumulator(1, (0.5,))
    sure.update(chance**3, event)
    _, forecast, observed = sure.result().reliability(0)
    assert (np.abs(observed - forecast) > 0.1).sum() >= 5


def test_the_roc_area_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chances, truth, valid = made(3)
    for few in (False, True):  # many values; or a few, with ties
        given = np.round(chances * 4) / 4 if few else chances
        sums = ChanceAccumulator(2, (1.0, 3.0))
        sums.update(given[:2], truth[:2], valid[:2])
        sums.update(given[2:], truth[2:], valid[2:])
        found = sums.result()
        for k, q in np.ndindex(2, 2):
            event = (truth[:, k, 0] >= (1.0, 3.0)[q])[valid]
            expected = metrics.roc_auc_score(event, given[:, k, q, 0][valid])
            assert found.roc_area[k, q] == pytest.approx(expected, abs=1e-9 if few else 2e-3)
    _, _, _, whole = found.roc(1)
    event = (truth[:, :, 0] >= 3.0)[np.repeat(valid[:, None], 2, axis=1)]
    likely = given[:, :, 1, 0][np.repeat(valid[:, None], 2, axis=1)]
    assert whole == pytest.approx(metrics.roc_auc_score(event, likely), abs=1e-9)


def test_the_roc_area_of_rare_events_and_low_chances_keeps_its_digits() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(4)
    chance = (random.random((1, 1, 1, 1, 200, 200)) ** 6 * 0.02).astype(np.float32)
    event = (random.random((1, 1, 1, 200, 200)) < chance[:, :, 0]).astype(np.float32)
    sums = ChanceAccumulator(1, (0.5,))
    sums.update(chance, event)
    expected = metrics.roc_auc_score(event.ravel() > 0, chance.ravel())
    assert 0.8 < expected < 1
    assert float(sums.result().roc_area[0, 0]) == pytest.approx(expected, abs=2e-3)


def test_brier_and_the_roc_curve_are_those_of_scores() -> None:
    probability = pytest.importorskip("scores.probability")
    xr = pytest.importorskip("xarray")
    chances, truth, _ = made(5)
    sums = ChanceAccumulator(2, (1.0, 3.0))
    sums.update(chances, truth)
    found = sums.result()
    event = xr.DataArray((truth[:, 0, 0] >= 1.0).astype(float), dims=("n", "y", "x"))
    likely = xr.DataArray(chances[:, 0, 0, 0].astype(float), dims=("n", "y", "x"))
    assert float(probability.brier_score(likely, event)) == pytest.approx(found.brier[0, 0])
    one = ChanceAccumulator(1, (1.0,))
    one.update(chances[:, :1, :1], truth[:, :1])
    chance, false, true, area = one.result().roc(0)
    curve = probability.roc_curve_data(likely, event, sorted(chance.tolist()))
    # Theirs ends with a chance above 1 that nothing has.
    np.testing.assert_allclose(true[::-1], curve["POD"][: len(true)], atol=1e-9)
    np.testing.assert_allclose(false[::-1], curve["POFD"][: len(false)], atol=1e-9)
    assert area == pytest.approx(float(curve["AUC"]), abs=0.02)  # theirs is of fewer points


def test_without_both_kinds_there_is_no_roc_area() -> None:
    sums = ChanceAccumulator(1, (1.0,))
    zeros = np.zeros((1, 1, 1, 1, 4, 4), np.float32)
    sums.update(zeros, zeros[:, :, 0])
    assert np.isnan(sums.result().roc_area).all()
    assert np.isnan(sums.result().roc(0)[3])


def test_one_and_nothing() -> None:
    sums = ChanceAccumulator(2, (1.0,))
    ones = np.ones((1, 2, 1, 1, 2, 2), np.float32)
    sums.update(ones, ones[:, :, 0], np.zeros((1, 2, 2), bool))
    assert np.isnan(sums.result().brier).all()
    sums.update(ones, ones[:, :, 0])
    found = sums.result()
    assert found.count[..., -1].tolist() == [[4], [4]]
    assert found.brier.tolist() == [[0.0], [0.0]]
    assert np.isnan(found.skill).all()  # nobody can be better than certainty about certainty
