"""Streamed nowcasts equal offline ones, whatever was run ahead and in whatever order it came."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, UsageError
from stpl_core.frames import Frame
from stpl_runtime.engine import Session, StateHandle, closed_loop, open_session
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.nowcasting.predict import graphs_needed, predict_sequences
from tests.runtime.conftest import CADENCE_S, make_frame

Maker = Callable[..., Nowcaster]


class CountingSession:
    """A real session that counts its calls, and spoils its frames where it is asked to."""

    def __init__(self, session: Session) -> None:
        self.inner, self.engine, self.provider = session, session.engine, session.provider
        self.steps = self.forecasts = self.copies = 0
        self.spoil = False

    def zero_state(self, batch: int = 1) -> StateHandle:
        return self.inner.zero_state(batch)

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self.steps += 1
        return self._maybe_spoilt(*self.inner.step(frame, state))

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self.forecasts += 1
        return self._maybe_spoilt(*self.inner.forecast(frame, state))

    def rollout(self, frames: Array) -> Array:
        return self.inner.rollout(frames)

    def state_arrays(self, state: StateHandle):  # type: ignore[no-untyped-def]
        self.copies += 1
        return self.inner.state_arrays(state)

    def state_from_arrays(self, arrays) -> StateHandle:  # type: ignore[no-untyped-def]
        return self.inner.state_from_arrays(arrays)

    def close(self) -> None:
        self.inner.close()

    def _maybe_spoilt(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        if self.spoil:
            frame = frame.copy()
            frame[0, 0, 0, 0] = np.nan
        return frame, state


@pytest.fixture
def make(bundle: Bundle, session: Session) -> Maker:
    def nowcaster(**options: object) -> Nowcaster:
        chosen = {"cadence_s": CADENCE_S, "session": session, **options}
        return Nowcaster(bundle, chosen.pop("session"), **chosen)  # type: ignore[arg-type]

    return nowcaster


def offline(bundle: Bundle, session: Session, frames: Array, horizon: int) -> Array:
    """`predict` on one sequence `(T, C, H, W)`, physical units."""
    return predict_sequences(bundle, session, frames[None], horizon)[0]


def warm(nowcaster: Nowcaster) -> int:
    steps = 0
    while nowcaster.idle_step():
        steps += 1
    return steps


def run(nowcaster: Nowcaster, frames: list[Frame], idle: bool = True) -> Iterator[Nowcast]:
    for frame in frames:
        nowcaster.put(frame)
        nowcast = nowcaster.issue()
        if nowcast is not None:
            yield nowcast
        if idle:
            warm(nowcaster)


def test_streamed_equals_predict_and_the_rollout_graph(any_bundle: Bundle) -> None:
    manifest = any_bundle.manifest
    session = open_session(any_bundle, ("step", "forecast", "rollout"), threads=1)
    context, horizon = manifest.context, manifest.horizon
    frames = [make_frame(n, manifest.frame) for n in range(context + 4)]
    nowcaster = Nowcaster(any_bundle, session, cadence_s=CADENCE_S)
    nowcasts = list(run(nowcaster, frames))
    assert len(nowcasts) == 5
    for n, nowcast in enumerate(nowcasts):
        window = np.stack([frame.data for frame in frames[n : n + context]])  # (T, C, H, W)
        np.testing.assert_array_equal(nowcast.context, window)
        np.testing.assert_array_equal(nowcast.frames, offline(any_bundle, session, window, horizon))
        unrolled = manifest.codec.physical_from_model(
            session.rollout(manifest.codec.model_from_physical(window)[None])[0]
        )
        np.testing.assert_allclose(nowcast.frames, unrolled, rtol=0, atol=1e-6)
        assert nowcast.issue_time == frames[n + context - 1].valid_time
    session.close()


@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
@pytest.mark.parametrize("idle", [True, False])
def test_any_horizon(
    bundle: Bundle, session: Session, make: Maker, horizon: int, idle: bool
) -> None:
    frames = [make_frame(n) for n in range(9)]
    nowcasts = list(run(make(horizon=horizon), frames, idle))
    assert len(nowcasts) == 6
    for n, nowcast in enumerate(nowcasts):
        window = np.stack([frame.data for frame in frames[n : n + 4]])
        np.testing.assert_array_equal(nowcast.frames, offline(bundle, session, window, horizon))
        loop = closed_loop(session, window[None], horizon)[0]
        np.testing.assert_allclose(nowcast.frames, np.clip(loop, 0, 1), rtol=0, atol=1e-6)
        assert len(nowcast.valid_times) == horizon


def test_every_frame_of_the_context_matters(bundle: Bundle, session: Session) -> None:
    window = np.stack([make_frame(n).data for n in range(4)])
    before = offline(bundle, session, window, 3)
    for t in range(4):
        changed = window.copy()
        changed[t] = 1.0 - changed[t]
        assert np.abs(offline(bundle, session, changed, 3) - before).max() > 1e-5


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    keys=st.lists(st.floats(0, 4.99), min_size=14, max_size=14),
    idle=st.lists(st.integers(0, 4), min_size=14, max_size=14),
    again=st.sets(st.integers(0, 13)),
    carried=st.booleans(),
)
def test_any_order_inside_the_allowance_gives_the_offline_nowcast(
    bundle: Bundle,
    session: Session,
    make: Maker,
    keys: list[float],
    idle: list[int],
    again: set[int],
    carried: bool,
) -> None:
    """Frame n arrives as number `n + key` or so; some idle steps in between; some come twice."""
    order = sorted(range(14), key=lambda n: n + keys[n] * 0.8)
    nowcaster = make(mode="carry" if carried else "window")
    received: set[int] = set()
    issued: set[int] = set()
    for n, steps in zip(order, idle, strict=True):
        for _ in range(2 if n in again else 1):
            if nowcaster.put(make_frame(n)).verdict == "used":
                received.add(n)
        nowcast = nowcaster.issue()
        if nowcast is not None:
            newest = max(received)
            assert nowcast.issue_time == make_frame(newest).valid_time
            assert newest not in issued
            issued.add(newest)
            window = np.stack([make_frame(k).data for k in range(newest - 3, newest + 1)])
            np.testing.assert_array_equal(nowcast.context, window)
            first = newest if carried else newest - 3
            while carried and first - 1 in received:
                first -= 1  # the state has read the whole run of frames without a hole
            expected = stepped(bundle, session, range(first, newest + 1))
            np.testing.assert_array_equal(nowcast.frames, expected)
        for _ in range(steps):
            nowcaster.idle_step()
        counts = nowcaster.ledger.snapshot()
        assert counts.add_up
    if len(received) == 14:  # nothing was late: the newest slot has its nowcast
        assert 13 in issued
    slots = max(received) - order[0] + 1  # from the first frame on
    done = nowcaster.issued + nowcaster.skipped + nowcaster.incomplete
    assert done + nowcaster.waiting == slots


def stepped(bundle: Bundle, session: Session, slots: range) -> Array:
    """The nowcast after these frames, from the zero state: `(K, C, H, W)`, physical units."""
    frames = np.stack([make_frame(n).data for n in slots])
    whole = bundle.manifest.model_copy(update={"context": len(slots)})
    return offline(Bundle(bundle.path, whole), session, frames, whole.horizon)


def test_after_arrival_one_forecast_is_left(make: Maker, session: Session) -> None:
    counting = CountingSession(session)
    nowcaster = make(session=counting)
    for n in range(8):
        counting.steps = counting.forecasts = 0
        nowcaster.put(make_frame(n))
        assert nowcaster.prewarmed == (n >= 3)
        issued = nowcaster.issue()
        assert (counting.steps, counting.forecasts) == (0, int(n >= 3))
        assert (issued is None) == (n < 3)
        ahead = warm(nowcaster)
        assert ahead <= 3
    assert ahead == 3  # T - 1 steps for each nowcast, all of them before the frame


def test_a_frame_that_comes_early_finds_the_prefix_finished_first(
    bundle: Bundle, make: Maker, session: Session
) -> None:
    counting = CountingSession(session)
    nowcaster = make(session=counting)
    list(run(nowcaster, [make_frame(n) for n in range(5)]))
    nowcaster.put(make_frame(5))
    nowcaster.issue()
    nowcaster.idle_step()
    counting.steps = 0
    nowcaster.put(make_frame(6))
    assert not nowcaster.prewarmed
    nowcast = nowcaster.issue()
    assert counting.steps == 2
    assert nowcast is not None
    window = np.stack([make_frame(n).data for n in range(3, 7)])
    np.testing.assert_array_equal(nowcast.frames, offline(bundle, session, window, 3))


def test_a_correction_rebuilds_the_prefix(bundle: Bundle, make: Maker, session: Session) -> None:
    nowcaster = make()
    list(run(nowcaster, [make_frame(n) for n in range(6)]))
    assert nowcaster.put(make_frame(4, variant=1)).verdict == "duplicate"
    assert nowcaster.issue() is None  # slot 5 had its nowcast
    warm(nowcaster)
    nowcaster.put(make_frame(6))
    assert nowcaster.prewarmed
    nowcast = nowcaster.issue()
    assert nowcast is not None
    window = np.stack([make_frame(n, variant=int(n == 4)).data for n in range(3, 7)])
    np.testing.assert_array_equal(nowcast.frames, offline(bundle, session, window, 3))


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_after_a_gap_nothing_until_t_contiguous_frames(make: Maker, mode: str) -> None:
    nowcaster = make(mode=mode)
    slots = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    issued = [nowcast.issue_time for nowcast in run(nowcaster, [make_frame(n) for n in slots])]
    assert issued == [make_frame(n).valid_time for n in (3, 4, 9, 10)]
    assert nowcaster.incomplete == 3 + 4  # 0..2 and 5..8
    assert nowcaster.skipped == 0


def test_carry_never_resets_and_starts_anew_after_a_gap(
    bundle: Bundle, session: Session, make: Maker
) -> None:
    nowcaster = make(mode="carry")
    for n, nowcast in enumerate(run(nowcaster, [make_frame(n) for n in range(10)]), start=3):
        np.testing.assert_array_equal(nowcast.frames, stepped(bundle, session, range(n + 1)))
    (after,) = run(nowcaster, [make_frame(n) for n in range(20, 24)])
    np.testing.assert_array_equal(after.frames, stepped(bundle, session, range(20, 24)))
    long, short = stepped(bundle, session, range(10)), stepped(bundle, session, range(6, 10))
    assert np.abs(long - short).max() > 1e-6  # there is something to carry


def test_carry_is_one_call_for_each_frame(make: Maker, session: Session) -> None:
    counting = CountingSession(session)
    nowcaster = make(session=counting, mode="carry")
    list(run(nowcaster, [make_frame(n) for n in range(20)]))
    assert (counting.forecasts, counting.steps, counting.copies) == (17, 3, 0)


@pytest.mark.parametrize("horizon", [1, 3, 5])
def test_carry_takes_in_frames_whose_nowcast_was_skipped(
    bundle: Bundle, session: Session, make: Maker, horizon: int
) -> None:
    nowcaster = make(mode="carry", horizon=horizon)
    list(run(nowcaster, [make_frame(n) for n in range(5)]))
    for n in range(5, 16):  # more than the window holds
        nowcaster.put(make_frame(n))
    nowcast = nowcaster.issue()
    assert nowcast is not None
    assert nowcaster.skipped == 10
    frames = np.stack([make_frame(n).data for n in range(16)])[None]
    expected = np.clip(closed_loop(session, frames, horizon)[0], 0, 1)
    np.testing.assert_allclose(nowcast.frames, expected, rtol=0, atol=1e-6)


def test_carry_has_read_what_came_before_its_first_nowcast(
    bundle: Bundle, session: Session, make: Maker
) -> None:
    nowcaster = make(mode="carry")
    for n in range(9):
        nowcaster.put(make_frame(n))
    nowcast = nowcaster.issue()
    assert nowcast is not None
    np.testing.assert_array_equal(nowcast.frames, stepped(bundle, session, range(9)))


@pytest.mark.parametrize("horizon", [2, 3])
def test_carry_takes_a_correction_of_the_newest_frame(
    session: Session, make: Maker, horizon: int
) -> None:
    nowcaster = make(mode="carry", horizon=horizon)
    list(run(nowcaster, [make_frame(n) for n in range(6)]))
    nowcaster.put(make_frame(5, variant=1))
    nowcaster.put(make_frame(6))
    nowcast = nowcaster.issue()
    assert nowcast is not None
    frames = np.stack([make_frame(n, variant=int(n == 5)).data for n in range(7)])[None]
    expected = np.clip(closed_loop(session, frames, horizon)[0], 0, 1)
    np.testing.assert_allclose(nowcast.frames, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["window", "carry"])
def test_nan_from_the_engine_is_never_published(
    bundle: Bundle, session: Session, make: Maker, mode: str
) -> None:
    counting = CountingSession(session)
    nowcaster = make(session=counting, mode=mode)
    list(run(nowcaster, [make_frame(n) for n in range(5)]))
    counting.spoil = True
    nowcaster.put(make_frame(5))
    with pytest.raises(AccuracyError, match="NaN or infinite"):
        nowcaster.issue()
    counting.spoil = False
    first = 3 if mode == "window" else 2  # carry starts anew with all that the window held
    assert nowcaster.issue() is None  # once is enough for one slot
    nowcaster.put(make_frame(6))
    nowcast = nowcaster.issue()
    assert nowcast is not None
    np.testing.assert_array_equal(nowcast.frames, stepped(bundle, session, range(first, 7)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.zeros((1, 16, 17), np.float32), "has frames of shape"),
        (np.full((1, 16, 16), np.nan, np.float32), "NaN or infinite"),
        (np.full((1, 16, 16), np.inf, np.float32), "NaN or infinite"),
        (np.full((1, 16, 16), 1.5, np.float32), "values from 1.5"),
        (np.full((1, 16, 16), -0.5, np.float32), "values from -0.5"),
    ],
)
def test_a_bad_frame_is_counted_and_leaves_no_trace(make: Maker, data: Array, reason: str) -> None:
    nowcaster = make()
    list(run(nowcaster, [make_frame(n) for n in range(4)]))
    put = nowcaster.put(Frame(make_frame(4).valid_time, data, source_id="x.npy"))
    assert put.verdict == "bad"
    assert put.reason.startswith("x.npy")
    assert reason in put.reason
    assert nowcaster.ledger.snapshot().bad == 1
    assert nowcaster.window.newest == 3


def test_only_the_graphs_that_are_needed(bundle: Bundle) -> None:
    assert graphs_needed(bundle.manifest, 3) == ("step", "forecast")
    assert graphs_needed(bundle.manifest, 4) == ("step",)
    one = bundle.manifest.model_copy(update={"context": 1})
    assert graphs_needed(one, 3) == ("forecast",)
    with pytest.raises(UsageError, match="--horizon 0"):
        graphs_needed(bundle.manifest, 0)


def test_warm_up_changes_nothing(bundle: Bundle, session: Session, make: Maker) -> None:
    nowcaster = make()
    nowcaster.warm_up()
    (nowcast,) = run(nowcaster, [make_frame(n) for n in range(4)])
    np.testing.assert_array_equal(nowcast.frames, stepped(bundle, session, range(4)))


def test_how_many_frames_are_wanted(make: Maker) -> None:
    """T = 4, the cadence stated or learned."""
    for cadence_s in (CADENCE_S, None):
        nowcaster, wanted = make(cadence_s=cadence_s), []
        for slot in (0, 1, 2, 5, 6, 7, 8):
            nowcaster.put(make_frame(slot))
            wanted.append(nowcaster.frames_to_next)
        assert wanted == [3, 2, 1, 3, 2, 1, 0]
        assert nowcaster.issue() is not None
        assert nowcaster.frames_to_next == 1
    assert make().frames_to_next == 4
