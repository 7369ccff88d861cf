"""Pictures taken at a cadence, and the clock of a camera."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpl_runtime.ingest.sampling import LiveClock, Sampler
from stpl_runtime.timing import EPOCH


def test_a_clock_that_is_set_back_silences_no_camera() -> None:
    sampler: Sampler[int] = Sampler(60.0, EPOCH)
    ahead, right = EPOCH + timedelta(hours=5), EPOCH + timedelta(hours=4)
    seconds = [timedelta(seconds=n) for n in range(0, 300, 5)]
    times = [*(ahead + after for after in seconds), *(right + after for after in seconds)]
    taken = [at for n, at in enumerate(times) for at, _ in sampler.offer(at, n)]
    minutes = [timedelta(minutes=n) for n in range(5)]
    nearest = ahead + timedelta(seconds=295)  # to the slot that never came
    assert taken == [*(ahead + n for n in minutes), nearest, *(right + n for n in minutes)]


@settings(max_examples=60, deadline=None)
@given(
    fps=st.sampled_from([1.0, 5.0, 25.0, 29.97]),
    every=st.sampled_from([0.5, 1.0, 2.0]),
    jitter=st.floats(0.0, 0.9),
    lost=st.sampled_from([0.0, 0.2, 0.9]),
    seed=st.integers(0, 99),
)
def test_the_sampler_fills_each_slot_once_where_a_picture_is_near(
    fps: float, every: float, jitter: float, lost: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    kept = np.flatnonzero(random.random(300) >= lost)
    times = (kept + jitter * random.uniform(-0.5, 0.5, len(kept))) / fps + 7.3
    sampler: Sampler[float] = Sampler(every, EPOCH)
    offered = [sampler.offer(EPOCH + timedelta(seconds=t), t) for t in times.tolist()]
    taken = [pair for pairs in [*offered, sampler.rest()] for pair in pairs]
    assert all(abs((at - EPOCH).total_seconds() - t) < 1e-5 for at, t in taken)
    found = np.array([t for _, t in taken])
    slots = np.round(found / every)
    if fps * every < 4 or lost > 0.5:  # such pictures may be taken as they come
        assert (np.diff(found) > 0.5 * every - 1e-5).all()
        return
    assert (np.diff(slots) > 0).all()
    near = np.abs(times / every - np.round(times / every)) <= 0.25 - 1e-6
    assert set(np.round(times[near] / every)) <= set(slots)
    assert (np.abs(found / every - slots) <= 0.25 + 1e-6).all()
    if jitter == lost == 0.0:  # the first came before its rate was known
        best = np.abs(times[:, None] - slots[None] * every).min(axis=0)
        np.testing.assert_allclose(np.abs(found - slots * every)[1:], best[1:], atol=1e-5)


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_a_camera_at_its_own_cadence_is_taken_wherever_its_pictures_lie(
    phase: float, jitter: float
) -> None:
    random = np.random.default_rng(0)
    times = (np.arange(100) + phase + random.uniform(-jitter, jitter, 100)) * 0.1
    sampler: Sampler[float] = Sampler(0.1, EPOCH)
    offered = [sampler.offer(EPOCH + timedelta(seconds=t), t) for t in times.tolist()]
    taken = [t for pairs in [*offered, sampler.rest()] for _, t in pairs]
    assert len(taken) >= 90
    assert (np.diff(taken) > 0.05).all()


def test_the_clock_of_a_camera() -> None:
    """Delays are taken out, a slow camera is followed, and one that begins anew is believed."""
    clock, random = LiveClock(), np.random.default_rng(0)
    for n in range(5000):  # 25 a second; it is 0.1% slow
        true = 1000.0 + n / 25
        at = clock.at(n / 25 * 0.999 + 50.0, true + random.uniform(0.0, 0.2))
        if n > 2000:
            assert abs((at - EPOCH).total_seconds() - true) < 0.3
    at = clock.at(0.0, 1300.0)  # its clock began again at 0
    assert (at - EPOCH).total_seconds() == pytest.approx(1300.0)
    at = clock.at(None, 1400.0)
    assert (at - EPOCH).total_seconds() == 1400.0
