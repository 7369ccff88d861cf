"""Brier score and reliability, against scikit-learn's and their own definitions."""

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
