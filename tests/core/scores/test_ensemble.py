"""CRPS and rank histogram of ensembles, beside the library `scores` and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.codec import Array
from stpl_core.scores.ensemble import EnsembleAccumulator, crps, ranks


def ensemble(members: int = 7) -> tuple[Array, Array, np.ndarray]:
    """Members `(M, K, C, H, W)`, truth `(K, C, H, W)`, mask `(H, W)`; many ties at 0."""
    draw = np.random.default_rng(0)
    drawn = np.maximum(draw.normal(0, 2, (members, 3, 1, 12, 10)), 0).round(1).astype(np.float32)
    truth = np.maximum(draw.normal(0, 2, (3, 1, 12, 10)), 0).round(1).astype(np.float32)
    return drawn, truth, draw.random((12, 10)) < 0.7


def test_scores_agrees() -> None:
    """The Australian Bureau of Meteorology's library, on the pixels that count."""
    xr, theirs = pytest.importorskip("xarray"), pytest.importorskip("scores.probability")
    members, truth, valid = ensemble()
    added = EnsembleAccumulator(3, 7)
    added.update(members, truth, valid)
    added.update(members[:, ::-1], truth, valid)
    found = added.result()
    assert found.pixels.tolist() == [2 * valid.sum()] * 3
    for k in range(3):
        both = [members[:, k, 0][:, valid], members[:, 2 - k, 0][:, valid]]
        forecast = xr.DataArray(np.concatenate(both, axis=1), dims=("member", "pixel"))
        seen = xr.DataArray(np.tile(truth[k, 0][valid], 2), dims="pixel")
        expected = theirs.crps_for_ensemble(forecast, seen, "member", method="ecdf")
        assert found.crps[k] == pytest.approx(float(expected), rel=1e-6)
        histogram = theirs.rank_histogram(forecast, seen, "member")
        np.testing.assert_allclose(found.ranks[k], histogram, atol=1e-9)
        assert found.spread[k] ** 2 == pytest.approx(float(forecast.var("member", ddof=1).mean()))
        error = ((forecast.mean("member") - seen) ** 2).mean()
        assert found.error[k] ** 2 == pytest.approx(float(error), rel=1e-6)


def test_by_hand() -> None:
    values = np.array([[0.0, 1.0], [2.0, 1.0]])
    assert crps(values, np.array([1.0, 3.0])).tolist() == [0.5, 2.0]
    assert ranks(values, np.array([1.0, 3.0])).tolist() == [0, 1, 1]
    assert ranks(values, np.array([0.0, 1.0])) == pytest.approx([0.5 + 1 / 3, 0.5 + 1 / 3, 1 / 3])


def test_members_that_are_drawn_as_the_truth_is_have_even_ranks() -> None:
    draw = np.random.default_rng(1)
    added = EnsembleAccumulator(1, 4)
    added.update(draw.normal(size=(4, 1, 1, 200, 200)), draw.normal(size=(1, 1, 200, 200)))
    found = added.result()
    np.testing.assert_allclose(found.ranks[0], 0.2, atol=0.01)
    assert found.spread[0] == pytest.approx(1, abs=0.02)
    assert found.error[0] == pytest.approx(1.25**0.5, abs=0.02)


def test_nothing_scored_is_nan() -> None:
    members, truth, _ = ensemble()
    added = EnsembleAccumulator(3, 7)
    added.update(members, truth, np.zeros((12, 10), bool))
    assert np.isnan(added.result().crps).all()
