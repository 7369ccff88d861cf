"""Time gone wrong at the source: wrong clocks, gaps, a cadence learned too long."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stpl_core.frames import Frame
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcasting.cadence import learned_cadence
from stpl_runtime.nowcasting.window import Placed, Window
from tests.runtime.conftest import CADENCE_S, slot_time

LIVE, BURST = CADENCE_S, 0.001
"""Seconds between arrivals."""


class Fed:
    """A window that is fed at a pace, with a wall clock that goes along."""

    def __init__(self, context: int = 4, *, learned: bool = False, clock: float = 0.0) -> None:
        """`clock`: slots by which this machine's clock is ahead of slot 0 at the start."""
        self.ledger, self.now = Ledger(), 1000.0
        self._start, self._lead = self.now, clock
        self.window = Window(
            context,
            self.ledger,
            cadence_s=None if learned else CADENCE_S,
            clock=self.clock,
        )
        self.serial = itertools.count()

    def clock(self) -> datetime:
        return slot_time(self._lead) + timedelta(seconds=self.now - self._start)

    def put(self, slot: float, pace_s: float = LIVE) -> Placed:
        self.now += pace_s
        self.ledger.receive()
        frame = Frame(slot_time(slot), np.full((1, 1, 1), next(self.serial), np.float32))
        placed = self.window.put(frame, self.now)
        assert self.ledger.snapshot().add_up
        return placed

    def put_all(self, slots: Iterable[float], pace_s: float = LIVE) -> list[str]:
        return [self.put(slot, pace_s).verdict for slot in slots]

    def times(self) -> list[float] | None:
        """The window's slots on the tests' grid."""
        complete = self.window.complete()
        if complete is None:
            return None
        first = slot_time(0)
        return [(e.frame.valid_time - first).total_seconds() / CADENCE_S for e in complete]


def test_a_frame_of_a_wrong_clock_is_bad_and_spoils_nothing() -> None:
    fed = Fed()
    fed.put_all(range(6))
    placed = fed.put(500_000)
    assert placed.verdict == "bad"
    assert "ahead of this machine's clock" in placed.reason
    assert fed.put_all(range(6, 10)) == ["used"] * 4
    assert fed.times() == [6, 7, 8, 9]
    assert fed.ledger.snapshot().bad == 1


def test_a_source_whose_clock_jumps_ahead_for_good_is_followed() -> None:
    fed = Fed()
    fed.put_all(range(6))
    placed = [fed.put(slot) for slot in range(1000, 1008)]
    assert [one.verdict for one in placed] == ["bad"] * 2 + ["used"] * 6
    assert [one.notice.split(" from")[0] for one in placed if one.notice] == ["new time line"]
    assert fed.times() == [1004, 1005, 1006, 1007]
    assert fed.window.gaps == 1


def test_wrong_clocks_that_do_not_agree_are_never_followed() -> None:
    fed = Fed()
    fed.put_all(range(6))
    assert fed.put_all([1000, 5000, 3000, 9000, 9000, 2000]) == ["bad"] * 6
    assert fed.put_all([1000, 6, 1001, 7, 1002, 8]) == ["bad", "used"] * 3
    assert fed.times() == [5, 6, 7, 8]


def test_a_gap_in_the_past_is_told_and_goes_on_at_once() -> None:
    fed = Fed(clock=10_000)
    fed.put_all(range(6))
    placed = fed.put(100)
    assert placed.verdict == "used"
    assert placed.notice == "gap: 94 slots without a frame; the window starts anew"
    assert fed.times() is None
    assert fed.put_all([99, 101, 102]) == ["used"] * 3  # late inside the allowance, as ever
    assert fed.times() == [99, 100, 101, 102]


@pytest.mark.parametrize("phase", [0.0, 0.4])
def test_a_clock_that_is_set_back_is_followed(phase: float) -> None:
    fed = Fed()
    fed.put_all(range(100, 120))
    placed = [fed.put(slot + phase) for slot in range(10)]
    assert [one.verdict == "used" for one in placed] == [False] * 2 + [True] * 8
    assert sum(bool(one.notice) for one in placed) == 1
    times = fed.times()
    assert times is not None
    assert np.allclose(times, np.arange(6, 10) + phase)


def test_a_backlog_of_old_frames_is_late_however_long_it_is() -> None:
    fed = Fed()
    fed.put_all(range(100, 110))
    assert fed.put_all(range(50), BURST) == ["late"] * 50
    assert fed.put(110).verdict == "used"
    assert fed.times() == [107, 108, 109, 110]


def test_frames_of_another_phase_are_followed() -> None:
    """A camera that was restarted: the same cadence, half a slot later."""
    fed = Fed(clock=10_000)
    fed.put_all(range(10))
    verdicts = fed.put_all([n + 0.5 for n in range(10, 18)], BURST)
    assert verdicts == ["dropped"] * 2 + ["used"] * 6
    assert fed.times() == [14.5, 15.5, 16.5, 17.5]


def test_a_cadence_learned_across_a_hole_is_mended() -> None:
    fed = Fed(learned=True, clock=10_000)
    verdicts = fed.put_all([0, 2, 4, *range(5, 20)])  # every second frame was lost at first
    assert fed.window.grid is not None
    assert fed.window.grid.cadence_s == pytest.approx(CADENCE_S)
    assert fed.times() == [16, 17, 18, 19]
    assert verdicts.count("dropped") == 2  # 5 and 7; 9 decided
    assert fed.window.gaps == 1


def test_a_learned_grid_follows_a_cadence_that_was_not_exact() -> None:
    """The first steps are 10% too long, and the clock drifts: none of 5,000 frames is lost."""
    fed = Fed(learned=True, clock=1e6)
    random = np.random.default_rng(0)
    slots = [0.0, 1.1, 2.2, *(3.2 + np.arange(5000) * 1.0001 + random.normal(0, 0.02, 5000))]
    verdicts = fed.put_all(slots)
    assert set(verdicts[2:]) == {"used"}
    assert fed.ledger.snapshot().used == len(slots)
    assert fed.window.newest == len(slots) - 1


def test_an_exact_cadence_stays_exact() -> None:
    fed = Fed(learned=True, clock=1e6)
    fed.put_all(range(1000))
    assert fed.window.grid is not None
    assert fed.window.grid.cadence_s == CADENCE_S
    assert fed.window.grid.phase == slot_time(0)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([0, 10, 20], 10),
        ([0, 20, 30], 10),  # one is missing
        ([0, 20, 50], 10),  # two steps that have a part in common
        ([30, 0, 10], 10),
        ([0, 10.4, 20.2], 10.1),
        ([0, 10, 10_000], 10),
        ([0, 10, 13], 1),
        ([0, 10, 13.7], None),
        ([0, 10], 10),
        ([0], None),
    ],
)
def test_the_longest_step_that_all_are_multiples_of(
    times: Sequence[float], seconds: float | None
) -> None:
    found = learned_cadence([slot_time(0) + timedelta(seconds=t) for t in times])
    assert found == (None if seconds is None else pytest.approx(seconds))


@settings(max_examples=300, deadline=None)
@given(
    missing=st.sets(st.integers(1, 30), max_size=14),
    step=st.sampled_from([0.04, 1.0, 300.0, 3600.0]),
)
def test_a_learned_cadence_is_a_multiple_of_the_real_one(missing: set[int], step: float) -> None:
    """Steps of 5 and 4 may as well be jitter, which is evened out: at most three in a row missing.

    What is learned wrongly then is mended by the frames that follow; see the last test.
    """
    slots = [n for n in range(40) if n not in missing][:3]
    assume(max(np.diff(slots)) <= 4)
    found = learned_cadence([slot_time(0) + timedelta(seconds=step * n) for n in slots], last=True)
    assert found is not None
    assert found / step == pytest.approx(round(found / step), abs=0.01)


@settings(max_examples=200, deadline=None)
@given(
    jumps=st.lists(st.sampled_from([1, 1, 1, 1, 2, 7, 300, -2, -50, 0.5]), min_size=1, max_size=80),
    live=st.booleans(),
)
def test_no_source_is_lost_for_good(jumps: list[float], live: bool) -> None:
    """Whatever the clock did: once frames come steadily, the window is full after T + 2 of them."""
    fed = Fed(clock=0)
    slot = 0.0
    for jump in jumps:
        slot += jump
        fed.put(slot, LIVE if live else BURST)
    fed.put_all([slot + n for n in range(1, 4 + 3)])  # at the pace of the data
    assert fed.times() == [slot + n for n in (3, 4, 5, 6)]
