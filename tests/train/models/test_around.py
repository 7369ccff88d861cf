"""Chances that take in those of the places around, beside numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stpl_train.models.events import Around, chances_of, share_anywhere

Doubles = np.ndarray[Any, np.dtype[np.float64]]
PATCH, SIZE, HORIZON = 4, (9, 6), 12


def box(x: Doubles) -> Doubles:
    """The mean of five places around, along both axes; nothing lies outside."""
    wide = np.pad(x, 2)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (5, 5))
    made: Doubles = windows.mean((-1, -2))
    return made


def finer(x: Doubles, axis: int) -> Doubles:
    """Between the centres of patches, along an axis."""
    count = x.shape[axis]
    places = (np.arange(count * PATCH) + 0.5) / PATCH - 0.5
    made: Doubles = np.apply_along_axis(
        lambda row: np.interp(places, np.arange(count), row), axis, x
    )
    return made


def taken_in(chances: Doubles, share: float) -> Doubles:
    rows, columns = SIZE
    means = chances.reshape(rows, PATCH, columns, PATCH).mean((1, 3))
    around = box(box(means)) / box(box(np.ones(SIZE)))
    made: Doubles = chances + share * (finer(finer(around, 0), 1) - chances)
    return made


def logits(seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, 3, 1, SIZE[0] * PATCH, SIZE[1] * PATCH, generator=drawn)


def leads(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("lead", "share"), [(1.0, 0.0), (6.5, 0.25), (12.0, 0.5), (30.0, 0.5)])
def test_the_share_of_what_is_around_grows_up_to_a_half(lead: float, share: float) -> None:
    given = logits()
    made = torch.sigmoid(Around(SIZE, PATCH, HORIZON)(given, leads(lead, lead)))
    chances = torch.sigmoid(given.double()).numpy()
    for row, level in np.ndindex(2, 3):
        wanted = taken_in(chances[row, level, 0], share)
        np.testing.assert_allclose(made[row, level, 0].numpy(), wanted, rtol=0, atol=2e-6)


def test_each_of_a_batch_has_its_own_lead_time() -> None:
    around, given = Around(SIZE, PATCH, HORIZON), logits(1)
    both = around(given, leads(2.0, 11.0))
    for n, lead in enumerate((2.0, 11.0)):
        torch.testing.assert_close(both[n : n + 1], around(given[n : n + 1], leads(lead)))


def test_nothing_is_taken_from_outside() -> None:
    given = torch.full((1, 1, 1, SIZE[0] * PATCH, SIZE[1] * PATCH), 1.5)
    torch.testing.assert_close(Around(SIZE, PATCH, HORIZON)(given, leads(12.0)), given)


def test_the_surest_chances_stay_finite() -> None:
    given = torch.tensor([-200.0, 200.0]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 36, 24)
    made = Around(SIZE, PATCH, HORIZON)(given, leads(12.0))
    assert made.isfinite().all()
    assert made.abs().min() > 13


def anywhere(area: float, lead: float) -> float:
    """Beside `share_anywhere`, of a horizon of 12."""
    rare = np.interp(np.log(area), np.log([0.01, 0.04]), [1.0, 0.0])
    return float(0.4 * np.interp(lead, [7.0, 12.0], [0.0, 1.0]) * rare)


def test_the_later_the_more_of_a_rare_event_is_as_likely_anywhere() -> None:
    areas = np.array([0.3, 0.04, 0.02, 0.01, 0.0005])
    for lead in (1.0, 6.0, 7.0, 9.5, 12.0, 40.0):
        made = share_anywhere(torch.tensor(areas[None]).float(), leads(lead), HORIZON)
        wanted = [anywhere(area, lead) for area in areas]
        np.testing.assert_allclose(made.numpy()[0], wanted, rtol=0, atol=1e-6)
    assert float(share_anywhere(torch.zeros(1, 1), leads(12.0), HORIZON)) == pytest.approx(0.4)
    assert float(share_anywhere(torch.zeros(1, 1), leads(1.0), 1)) == 0


def test_a_chance_is_spread_and_no_higher_one_is_greater() -> None:
    given = logits(2)
    areas = torch.tensor([[0.2, 0.02, 0.001], [0.1, 0.005, 0.002]])
    share = torch.tensor([[0.0, 0.2, 0.4], [0.1, 0.4, 0.4]])
    made = chances_of(given, areas, share).numpy()
    here = torch.sigmoid(given.double()).numpy()
    part, level = (x.double().numpy()[:, :, None, None, None] for x in (share, areas))
    wanted = np.minimum.accumulate((1 - part) * here + part * level, axis=1)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)
