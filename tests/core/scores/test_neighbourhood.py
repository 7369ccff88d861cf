"""Chances of a neighbourhood, against scipy's filter and their own definition."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.scores.neighbourhood import NeighbourhoodBrier, neighbourhood_chances


def fields(seed: int) -> np.ndarray:
    """`(3, 2, 1, 20, 17)`, mm/h."""
    return np.random.default_rng(seed).gamma(0.4, 4.0, (3, 2, 1, 20, 17)).astype(np.float32)


def test_the_share_of_events_inside_the_frame_as_scipy_filters() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    frames = fields(0)[:, 0]
    for side in (1, 3, 4, 9, 40):
        found = neighbourhood_chances(frames, 1.0, side)
        for n in range(3):
            event = (frames[n, 0] >= 1.0).astype(float)
            total = ndimage.uniform_filter(event, side, mode="constant")
            inside = ndimage.uniform_filter(np.ones_like(event), side, mode="constant")
            np.testing.assert_allclose(found[n, 0], total / inside, atol=1e-9)
    assert neighbourhood_chances(frames, 0.0, 7).min() == pytest.approx(1)  # at the edge too


def test_brier_scores_add_up_and_leave_out_what_does_not_count() -> None:
    forecast, truth = fields(1), fields(2)
    valid = np.random.default_rng(3).random((3, 20, 17)) < 0.6
    sums = NeighbourhoodBrier(2, (1.0, 5.0), (1, 5))
    sums.update(forecast[:1], truth[:1], valid[:1])
    sums.update(forecast[1:], truth[1:], valid[1:])
    found = sums.result()
    assert list(found) == [1, 5]
    for side in (1, 5):
        for k, q in np.ndindex(2, 2):
            threshold = (1.0, 5.0)[q]
            chance = neighbourhood_chances(forecast[:, k], threshold, side)[:, 0]
            off = chance[valid] - (truth[:, k, 0] >= threshold)[valid]
            assert found[side][k, q] == pytest.approx(np.mean(off**2))
    assert (found[5] < found[1]).all()  # a forecast without skill gains by being less sure
    empty = NeighbourhoodBrier(2, (1.0,), (3,))
    empty.update(forecast, truth, valid & False)
    assert np.isnan(empty.result()[3]).all()
