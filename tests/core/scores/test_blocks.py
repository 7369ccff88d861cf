"""Blocks by time; intervals against scipy's bootstrap, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from stpl_core.codec import FrameCodec
from stpl_core.scores.accumulator import CURVES, Accumulator
from stpl_core.scores.blocks import (
    BlockSums,
    Draws,
    Intervals,
    blocks_by_time,
    drawn,
    intervals,
    joined,
)

RAIN = FrameCodec(quantity="rain rate", units="mm h-1", low=0.0, high=40.0)


def windows(*starts: str, frames: int = 4, minutes: int = 5) -> np.ndarray:
    """`(N, frames)` times."""
    begin = np.array(starts, "datetime64[ns]")
    return begin[:, None] + np.arange(frames) * np.timedelta64(minutes, "m")


def test_a_stretch_of_time_is_a_block_and_a_long_one_is_cut_at_midnight() -> None:
    times = windows(
        "2020-01-05T02:00",  # a day alone, given out of order
        "2020-01-01T22:00", "2020-01-02T01:30",  # one storm over midnight
        "2020-01-02T01:30",  # another place at the same time
    )  # fmt: skip
    assert blocks_by_time(times).tolist() == [1, 0, 0, 0]
    apart = windows("2020-01-01T00:00", "2020-01-01T06:10", "2020-01-01T12:30")
    # 5 h 55 min from the first one's last frame: one stretch; 6 h 5 min: two.
    assert blocks_by_time(apart).tolist() == [0, 0, 1]
    hours = np.datetime64("2020-01-01T12:00", "ns") + np.arange(60) * np.timedelta64(1, "h")
    labels = blocks_by_time(hours[:, None] + np.arange(4) * np.timedelta64(15, "m"))
    assert labels.tolist() == [0] * 12 + [1] * 24 + [2] * 24


def test_windows_of_days_are_in_blocks_of_more_days() -> None:
    days = np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    labels = blocks_by_time(days[:40, None] + np.arange(11) * np.timedelta64(1, "D"))
    assert len(np.unique(labels)) in (1, 2)  # forty days in blocks of forty


def test_very_many_blocks_are_joined_with_their_neighbours() -> None:
    assert joined(np.array([7, 3, 7])).tolist() == [1, 0, 1]
    many = joined(np.arange(2000))
    assert many.tolist() == sorted(many.tolist())
    assert set(np.bincount(many)) == {4}


def storms(count: int, seed: int = 0, skill: float = 0.7) -> tuple[np.ndarray, ...]:
    """Forecast and truth `(count, 2, 1, 16, 16)`: storms that are easy or hard as a whole."""
    random = np.random.default_rng(seed)
    truth = (random.random((count, 2, 1, 16, 16)) < 0.3).astype(np.float32) * 5
    ease = np.clip(random.normal(skill, 0.15, (count, 1, 1, 1, 1)), 0, 1)
    keeps = random.random(truth.shape) < ease
    other = (random.random(truth.shape) < 0.3).astype(np.float32) * 5
    return np.where(keeps, truth, other).astype(np.float32), truth


def found(forecast: np.ndarray, truth: np.ndarray) -> tuple[Draws, Intervals]:
    """Each sequence a block."""
    sums, blocks = Accumulator(2, RAIN, (1.0,)), BlockSums(len(truth))
    for n in range(len(truth)):
        one = Accumulator(2, RAIN, (1.0,))
        one.update(forecast[n : n + 1], truth[n : n + 1])
        sums.merge(one)
        blocks.add(n, {name: values for name, values in one.sums.items() if name not in CURVES})
    draws = blocks.draws(sums.scores_of, drawn(len(truth)))
    return draws, intervals(draws)


def test_intervals_are_those_of_scipy() -> None:
    """The CSI of drawn storms is that of their counts added up, as scipy is told to do here."""
    stats = pytest.importorskip("scipy.stats")
    forecast, truth = storms(30)
    ours = found(forecast, truth)[1].per_lead["csi_1"]
    for k in range(2):
        said, seen = forecast[:, k] >= 1, truth[:, k] >= 1
        hits, any_ = ((mask).sum(axis=(1, 2, 3)) for mask in (said & seen, said | seen))

        def csi(hits: np.ndarray, any_: np.ndarray, axis: int = -1) -> np.ndarray:
            return hits.sum(axis=axis) / any_.sum(axis=axis)

        theirs = stats.bootstrap(
            (hits, any_), csi, paired=True, method="percentile", n_resamples=20000, rng=1
        ).confidence_interval
        width = theirs.high - theirs.low
        assert ours.low[k] == pytest.approx(theirs.low, abs=0.1 * width)
        assert ours.high[k] == pytest.approx(theirs.high, abs=0.1 * width)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    everything = found(*storms(4000, seed=99))[0]
    true_csi = float(everything.overall["csi_1"].mean())
    held = 0
    for seed in range(100):
        one = found(*storms(25, seed=seed))[1].overall["csi_1"]
        held += bool(one.low <= true_csi <= one.high)
    assert 86 <= held <= 99  # 95 of 100 is promised; percentile intervals of 25 are a bit narrow


def test_what_is_hard_for_both_is_left_out_of_the_difference() -> None:
    forecast, truth = storms(12, skill=0.6)
    better = np.where(np.random.default_rng(5).random(truth.shape) < 0.05, truth, forecast)
    draws, alone = found(forecast, truth)
    difference = intervals(found(better, truth)[0].less(draws)).overall["csi_1"]
    width = float(difference.high - difference.low)
    assert width < 0.3 * float(alone.overall["csi_1"].high - alone.overall["csi_1"].low)
    assert difference.sign == 1
    same = intervals(draws.less(draws)).overall["mse"]
    assert (same.low, same.high, same.sign) == (0, 0, 0)


def test_an_event_in_one_storm_alone_has_no_interval() -> None:
    forecast, truth = storms(10)
    truth[1:], forecast[1:] = 0, 0  # a third of the draws have no event at all
    one = found(forecast, truth)[1]
    assert np.isnan(one.per_lead["csi_1"].low).all()
    assert one.per_lead["csi_1"].sign.tolist() == [0, 0]
    assert np.isfinite(one.per_lead["mse"].low).all()
