"""How far what was learned is trusted: fitted as others fit it, and applied."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from stpl_train.models.trust import (
    HeldOut,
    above,
    as_learned,
    of_lead,
    together,
    trusted_field,
    trusted_logits,
)

PIXELS = 200_000


def drawn(factor: float, added: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Logits, what the moved frame says beside them, and whether there was an event, `(N,)`."""
    random = np.random.default_rng(0)
    logits = random.normal(-1, 1.5, PIXELS).astype(np.float32)
    beside = (random.normal(0.2 * logits, 0.7).clip(-1, 1) * 8).round().astype(np.float32) / 8
    chance = 1 / (1 + np.exp(-(factor * logits + added * beside - 0.8)))
    return logits, beside, random.random(PIXELS) < chance


def test_events_are_fitted_as_by_logistic_regression() -> None:
    """The likelihood of the same pixels, minimised by another's method."""
    logits, beside, event = drawn(0.6, 1.3)
    found = HeldOut(3, 2)
    for lead in range(3):
        found.add_events(lead, 0, logits, beside, event)

    def surprise(line: NDArray[np.float64]) -> float:
        made = line[0] * logits + line[1] * beside + line[2]
        return float(np.logaddexp(0, made).sum() - made[event].sum())

    best = minimize(surprise, [1.0, 0.0, 0.0], method="Nelder-Mead").x
    table = found.table().numpy()
    np.testing.assert_allclose(table[:, 1], best[0], atol=0.02)
    np.testing.assert_allclose(table[:, 3], best[1], atol=0.05)  # it has bins, and a prior
    np.testing.assert_array_equal(table[:, [2, 4]], as_learned(3, 2)[:, [2, 4]])  # nothing to fit


def test_the_moved_frame_never_speaks_against_an_event() -> None:
    """Where the best factor of it is below 0, it is left out, and the logits fitted alone."""
    logits, beside, event = drawn(0.9, -0.7)
    found = HeldOut(1, 1)
    found.add_events(0, 0, logits, beside, event)

    def surprise(line: NDArray[np.float64]) -> float:
        made = line[0] * logits + line[1]
        return float(np.logaddexp(0, made).sum() - made[event].sum())

    best = minimize(surprise, [1.0, 0.0], method="Nelder-Mead").x
    share, factor, added = found.table()[0].tolist()
    assert (share, added) == (1.0, 0.0)
    assert abs(factor - best[0]) < 0.02


def test_the_change_of_the_field_is_fitted_by_least_squares() -> None:
    random = np.random.default_rng(1)
    found = HeldOut(12, 1)
    learned = random.normal(0, 1, (12, 5000)).astype(np.float32)
    worth = np.array([0.2, *[0.7] * 10, 1.6])
    for lead in range(12):
        needed = worth[lead] * learned[lead] + random.normal(0, 1, 5000)
        found.add_field(lead, learned[lead], needed.astype(np.float32))
    share = found.table()[:, 0].numpy()
    # The first lead times stand for themselves, and no more than all is applied.
    np.testing.assert_allclose(share[[0, 1, 5]], [0.2, 0.7, 0.7], atol=0.06)
    assert share[-1] <= 1.0
    assert share[9] > 0.7
    assert HeldOut(2, 1).table()[:, 0].tolist() == [1.0, 1.0]


def test_events_of_weather_weigh_the_same() -> None:
    few, many = HeldOut(1, 1), HeldOut(1, 1)
    few.add_field(0, np.ones(10, np.float32), np.zeros(10, np.float32))
    many.add_field(0, np.ones(1000, np.float32), np.ones(1000, np.float32))
    for found, pixels in ((few, 10), (many, 1000)):
        found.add_events(0, 0, *(np.zeros(pixels, np.float32),) * 2, np.full(pixels, found is few))
    both = together([few, many])
    assert float(both.table()[0, 0]) == 0.5
    assert both.counts[0, 0, 0].sum() == both.counts[0, 0, 1].sum()


def test_what_is_not_trusted_is_the_moved_frame() -> None:
    torch.manual_seed(0)
    moved, field = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    levels, logits = torch.tensor([0.3, 0.6]), torch.randn(2, 2, 1, 8, 8)
    beside, lead = above(moved, levels), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    table = as_learned(3, 2)
    torch.testing.assert_close(trusted_field(table, lead, moved, field), field)
    torch.testing.assert_close(trusted_logits(table, lead, logits, beside), logits)
    table[0] = torch.tensor([0.0, 0.0, 0.5, 2.0, 1.0])
    there = trusted_field(table, lead, moved, field)
    events = trusted_logits(table, lead, logits, beside)
    torch.testing.assert_close(there[0], moved[0])
    torch.testing.assert_close(there[1], field[1])
    torch.testing.assert_close(events[0, 0], 2.0 * beside[0, 0])
    torch.testing.assert_close(events[0, 1], 0.5 * logits[0, 1] + beside[0, 1])
    assert ((beside[:, 0] > 0) == (moved > 0.3)).all()
    assert float(beside.abs().max()) == 1.0


def test_rows_go_with_the_lead_time() -> None:
    table = torch.rand(12, 4)
    lead = torch.tensor([1.0, 7.0, 12.0, 40.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(of_lead(table, lead), table[[0, 6, 11, 11]])
