"""Members: over many of them, each threshold is reached as often as its chance says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_core.codec import Array, FrameCodec
from stpl_runtime.chances import Chances
from stpl_runtime.ensembles.members import members_of
from stpl_runtime.ensembles.quantiles import distribution_of, falling_chances

RAIN = FrameCodec(
    quantity="rain rate", units="mm h-1", low=0.0, high=100.0, kind="db", threshold=0.1, clip=True
)
GREY = FrameCodec()
THRESHOLDS = {"mm h-1": (0.1, 0.5, 1.0, 2.0, 5.0, 10.0), "1": (0.2, 0.5)}
SHARES = (np.arange(2000) + 0.5) / 2000
"""What many members have of the uniform distribution."""


def values_of(codec: FrameCodec, chances: list[float], field: float) -> Array:
    """`(2000,)` of one pixel, rarest first."""
    count = len(SHARES)
    possible = distribution_of(
        codec,
        THRESHOLDS[codec.units],
        np.tile(np.asarray(chances, np.float32)[:, None, None, None], (1, 1, 1, count)),
        np.full((1, 1, count), field, np.float32),
    )
    return possible.values(SHARES)


@settings(max_examples=300, deadline=None)
@given(
    codec=st.sampled_from([RAIN, GREY]),
    chances=st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6),
    field=st.floats(0, 1, width=32),
)
def test_each_threshold_is_reached_as_often_as_its_chance_says(
    codec: FrameCodec, chances: list[float], field: float
) -> None:
    thresholds = THRESHOLDS[codec.units]
    falling = sorted(chances, reverse=True)[: len(thresholds)]
    values = values_of(codec, falling, field * codec.high)
    for threshold, chance in zip(thresholds, falling, strict=True):
        reached = float((values >= np.float32(threshold) * (1 - 1e-6)).mean())
        assert reached == pytest.approx(chance, abs=2 / len(SHARES))
    assert (np.diff(values) <= 1e-6 * codec.high).all()  # rarer is more
    assert codec.low <= values.min()
    assert values.max() <= codec.high


@pytest.mark.parametrize("codec", [RAIN, GREY])
def test_where_the_chance_is_nothing_a_dry_field_stays_dry(codec: FrameCodec) -> None:
    assert not values_of(codec, [0.0] * len(THRESHOLDS[codec.units]), 0.0).any()


def test_log_odds_fall_evenly_between_thresholds() -> None:
    """Half-way in decibels between 2 and 5 mm/h: 3.16 mm/h, and log-odds of ln(9) and -ln(9)."""
    values = values_of(RAIN, [1, 1, 1, 0.9, 0.1, 0], 3.0)
    assert float(np.median(values)) == pytest.approx(10**0.5, rel=0.01)
    sure = values_of(RAIN, [1, 1, 1, 1, 0, 0], 3.0)
    assert float((sure > 4).mean()) < 0.02
    assert sure.min() >= 2


def test_half_of_what_is_above_the_last_threshold_is_above_the_forecast_there() -> None:
    above = values_of(RAIN, [1, 1, 1, 1, 1, 0.5], 30.0)
    assert float(np.median(above[above >= 10])) == pytest.approx(30.0, rel=0.01)


def test_chances_that_rise_with_the_threshold_are_set_half_way() -> None:
    chances = np.array([[0.5, 0.9], [0.7, 0.5], [0.1, 0.5]])
    found = falling_chances(chances)
    np.testing.assert_allclose(found, [[0.6, 0.9], [0.6, 0.5], [0.1, 0.5]])


def shower() -> tuple[Array, Array, Chances]:
    """Context `(3, 1, H, W)`, frames `(2, 1, H, W)`, chances of them."""
    draw = np.random.default_rng(0)
    context = draw.gamma(0.5, 2, (3, 1, 24, 20)).astype(np.float32)
    frames = context[1:].copy()
    raw = np.sort(draw.random((2, 6, 1, 24, 20)), axis=1)[:, ::-1]
    raw[..., :5] = 0
    frames[..., :5] = 0
    return context, frames, Chances(THRESHOLDS["mm h-1"], raw.astype(np.float32))


def test_members_spread_as_the_chances_say_and_stay_dry_where_it_is_dry() -> None:
    context, frames, chances = shower()
    made = members_of(RAIN, context, frames, chances, 400, (1,))
    assert made.shape == (400, 2, 1, 24, 20)
    assert not made[..., :5].any()
    for q, threshold in enumerate(chances.thresholds):
        gap = (made >= threshold).mean(axis=0) - chances.values[:, q]  # (K, C, H, W)
        assert np.abs(gap).max() < 5 * 0.5 / 400**0.5
        assert abs(float(gap.mean())) < 0.01


def test_the_seed_decides_and_members_are_the_same_in_a_larger_ensemble() -> None:
    context, frames, chances = shower()
    five = members_of(RAIN, context, frames, chances, 5, (1,))
    np.testing.assert_array_equal(five, members_of(RAIN, context, frames, chances, 8, (1,))[:5])
    assert not np.array_equal(five, members_of(RAIN, context, frames, chances, 5, (2,)))
    assert len(np.unique(five.reshape(5, -1), axis=0)) == 5


def test_pixels_without_data_in_the_past_do_no_harm() -> None:
    context, frames, chances = shower()
    observed = np.ones((3, 24, 20), bool)
    observed[:, 3:8] = False
    made = members_of(RAIN, context, frames, chances, 2, (1,), observed)
    assert np.isfinite(made).all()
    context[:, :, 3:8] = 50.0  # whatever is there
    np.testing.assert_array_equal(
        made, members_of(RAIN, context, frames, chances, 2, (1,), observed)
    )
