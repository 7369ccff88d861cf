"""Learning rate and sampling as functions of the iteration (bibliography.md 3.1 to 3.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stpl_train.recipe import TrainingSection
from stpl_train.schedules import (
    drawn_leads,
    learning_rate,
    true_frame_chances,
    true_frame_mask,
)


def section(**keys: Any) -> TrainingSection:
    return TrainingSection(**{"iterations": 1000, "batch": 500, **keys})


def test_cosine_held_per_epoch_is_torchs() -> None:
    training = section(lr=1e-3, lr_min=1e-6, lr_hold=200)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5, eta_min=1e-6)
    for epoch in range(5):
        for iteration in (200 * epoch, 200 * epoch + 199):
            assert learning_rate(training, iteration) == pytest.approx(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()


def test_warm_up_rises_linearly() -> None:
    training = section(lr=1e-3, lr_hold=1000, warmup=10)
    rates = [learning_rate(training, i) for i in range(12)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 1e-4)
    assert rates[10] == rates[11] == 1e-3


def test_scheduled_sampling_falls_to_zero_at_half_of_training() -> None:
    training = section(sampling_until=0.5)
    found = [true_frame_chances(training, i) for i in (0, 250, 499, 500, 999)]
    assert [c for c, _ in found] == [1.0] * 5
    np.testing.assert_allclose([f for _, f in found], [1.0, 0.5, 0.002, 0.0, 0.0], atol=1e-12)
    assert true_frame_chances(section(sampling_until=0), 0) == (1.0, 0.0)


def test_reverse_scheduled_sampling() -> None:
    training = section(sampling="reverse", reverse_start=100, reverse_end=300, reverse_alpha=50)
    assert true_frame_chances(training, 99) == (0.5, 0.5)
    assert true_frame_chances(training, 100) == (0.5, 0.5)
    context, future = true_frame_chances(training, 200)
    assert context == pytest.approx(1 - 0.5 * np.exp(-2))
    assert future == pytest.approx(0.25)
    assert true_frame_chances(training, 300) == (1.0, 0.0)


def test_masks_have_these_chances_and_depend_on_seed_and_iteration_only() -> None:
    training = section(sampling="reverse", reverse_start=100, reverse_end=300, reverse_alpha=50)
    use_true = true_frame_mask(training, 200, context=6, horizon=9)
    assert use_true.shape == (500, 13)
    context, future = true_frame_chances(training, 200)
    assert use_true[:, :5].mean() == pytest.approx(context, abs=0.03)
    assert use_true[:, 5:].mean() == pytest.approx(future, abs=0.03)
    np.testing.assert_array_equal(use_true, true_frame_mask(training, 200, 6, 9))
    assert not np.array_equal(use_true, true_frame_mask(training, 201, 6, 9))
    other = training.model_copy(update={"seed": 1})
    assert not np.array_equal(use_true, true_frame_mask(other, 200, 6, 9))


def test_scheduled_sampling_always_shows_the_context() -> None:
    use_true = true_frame_mask(section(), 400, context=6, horizon=9)
    assert use_true[:, :5].all()
    assert 0 < use_true[:, 5:].mean() < 0.3
    np.testing.assert_array_equal(
        true_frame_mask(section(), 999, context=6, horizon=9),
        np.tile([*[True] * 5, *[False] * 8], (500, 1)),  # as at inference
    )


def test_lead_times_are_drawn_by_seed_and_iteration() -> None:
    leads = {"count": 5, "whole_context": 0.7, "events": (1.0,)}
    training = section(loss="mse-events", reversed_pass=False, leads=leads)
    drawn = [drawn_leads(training, n, context=6, horizon=12) for n in range(2000)]
    assert drawn[:20] == [drawn_leads(training, n, 6, 12) for n in range(20)]
    other = training.model_copy(update={"seed": 1})
    assert drawn[:20] != [drawn_leads(other, n, 6, 12) for n in range(20)]
    read = np.array([one for one, _ in drawn])
    assert set(read.tolist()) == {1, 2, 3, 4, 5, 6}
    assert np.mean(read == 6) == pytest.approx(0.7, abs=0.04)
    counts = np.bincount(np.concatenate([one for length, one in drawn if length == 6]))
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), 1 / 12, atol=0.01)
    for length, chosen in drawn:
        assert len(set(chosen)) == 5
        assert chosen == tuple(sorted(chosen))
        assert length == 6 or chosen[0] == 1
    assert drawn_leads(training, 0, context=1, horizon=2) == (1, (1, 2))
