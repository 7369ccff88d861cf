"""Each nowcast of a batch is that of an unbatched nowcaster; which batches are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, EnvironmentFault, StplError
from stpl_core.frames import Frame
from stpl_core.options import ContextMode, OnGap
from stpl_runtime.engine import Session, StateHandle, open_session
from stpl_runtime.engines.tiled import on_domain
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.nowcaster import Nowcaster
from stpl_runtime.streaming.continuous.batcher import ContinuousBatcher, Limits, limits_of
from stpl_runtime.streaming.continuous.deferred import DeferredSession
from tests.runtime.conftest import CADENCE_S, picture, slot_time
from tests.runtime.nowcasting.test_nowcaster import CountingSession
from tests.runtime.streaming.continuous.failing import FailingInBatches

Size = tuple[int, int]
NO_LIMITS = Limits(np.zeros(1), np.zeros(1))
"""A window's: the same bits, and no state after."""


@dataclass
class Pair:
    """One stream twice: in batches, and alone."""

    ours: Nowcaster
    alone: Nowcaster
    number: int
    slot: int = 0
    missing: list[int] = field(default_factory=list)

    def put(self, slot: int) -> None:
        shape = self.ours.manifest.frame
        data = picture(1000 * self.number + slot, shape)
        mask = None
        if slot % 4 == 1:  # some pixels were not observed
            mask = picture(7 + slot, shape)[0] > 0.3
        frame = Frame(slot_time(slot), data, mask, source_id=f"{self.number}-{slot}")
        assert self.ours.put(frame).verdict == self.alone.put(frame).verdict


class Lockstep:
    """Streams in batches, each beside the same one alone on a session of its own."""

    def __init__(self, bundle: Bundle, session: Session, streams: int, **options: Any) -> None:
        self.deferred = DeferredSession(session)
        exact = options.get("mode") == "carry"
        self.batcher = ContinuousBatcher(
            self.deferred,
            bundle.manifest,
            options.get("horizon") or bundle.manifest.horizon,
            limits=None if exact else NO_LIMITS,
        )
        self.batcher.sizes = (4, 3, 2)
        self.pairs = [
            Pair(
                Nowcaster(bundle, self.deferred, cadence_s=CADENCE_S, **options),
                Nowcaster(bundle, session, cadence_s=CADENCE_S, **options),
                n,
            )
            for n in range(streams)
        ]

    def act(self, stream: int, what: str) -> None:
        pair = self.pairs[stream % len(self.pairs)]
        if what == "frame":
            pair.put(pair.slot)
            pair.slot += 1
        elif what == "miss":
            pair.missing.append(pair.slot)
            pair.slot += 1
        elif what == "late" and pair.missing:
            pair.put(pair.missing.pop())
        elif what == "idle" and not self.deferred.read_some(self.batcher.sizes):
            for one in self.pairs:
                one.ours.idle_step()
                one.alone.idle_step()  # how far it came says when a carried state starts anew

    def send(self) -> list[tuple[Nowcast, Nowcast]]:
        """All that are due, in batches; each beside the one made alone."""
        works = []
        for pair in self.pairs:
            work = pair.ours.begin()
            if work is not None:
                works.append((pair, work))
        made = []
        for pair, work, result in self.batcher.finish(works):
            assert not isinstance(result, AccuracyError)
            alone = pair.alone.issue()
            assert alone is not None
            made.append((pair.ours.end(work, *result), alone))
        assert all(pair.alone.issue() is None for pair in self.pairs)
        return made


def check(made: Sequence[tuple[Nowcast, Nowcast]]) -> None:
    for ours, alone in made:
        np.testing.assert_array_equal(ours.frames, alone.frames)
        assert ours.issue_time == alone.issue_time
        assert ours.context_fill == alone.context_fill
        assert ours.source_id == alone.source_id


ACTS = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["frame"] * 6 + ["miss", "late", "idle", "idle", "idle", "send"]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(ACTS, min_size=20, max_size=90),
    st.sampled_from(["window", "carry"]),
    st.sampled_from(["reset", "hold", "bridge"]),
    st.sampled_from([None, 2, 5]),
)
def test_any_order_of_arrivals_gives_the_nowcasts_of_unbatched_streams(
    bundle: Bundle,
    session: Session,
    acts: list[tuple[int, str]],
    mode: ContextMode,
    on_gap: OnGap,
    horizon: int | None,
) -> None:
    run = Lockstep(bundle, session, 4, mode=mode, on_gap=on_gap, horizon=horizon)
    for stream, what in acts:
        if what == "send":
            check(run.send())
        else:
            run.act(stream, what)
    check(run.send())


@pytest.mark.parametrize("mode", ["window", "carry"])
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (12, 16)])
def test_streams_of_tiles_are_batched_too(
    bundle: Bundle, session: Session, mode: ContextMode, size: Size
) -> None:
    whole, wide = on_domain(bundle, session, size)
    counting = CountingSession(wide)
    run = Lockstep(whole, counting, 3, mode=mode)
    for _ in range(6):
        for stream in range(3):
            run.act(stream, "frame")
        forecasts, steps = counting.forecasts, counting.steps
        made = run.send()
        check(made)
        if made:
            assert len(made) == 3
            assert counting.forecasts - forecasts == 1 + 3  # one, and each alone
            first = made[0][0].issue_time == slot_time(3)
            again = 0 if mode == "carry" else 3 + 3 * 3  # a carried state goes on from its nowcast
            assert counting.steps - steps == (3 + 3 * 3 if first else again)


def test_the_bundles_batches_are_exact_enough(any_bundle: Bundle) -> None:
    """Of each committed bundle: the bits, or the tolerance that it comes with."""
    manifest = any_bundle.manifest
    session = open_session(any_bundle, ("step", "forecast"), threads=1)
    limits = limits_of(any_bundle, manifest.precision)
    assert limits.frames.shape == limits.chances.shape == (manifest.horizon,)
    assert (limits.frames > 0).all()
    batcher = ContinuousBatcher(DeferredSession(session), manifest, manifest.horizon, limits=limits)
    singles = [batcher._single(batcher._probe(n))[0] for n in range(5)]
    assert batcher._gap(singles) <= limits.frames.max()
    session.close()


@pytest.mark.parametrize("is_read", [True, False])
def test_only_a_past_that_was_read_counts_as_run_ahead(
    bundle: Bundle, session: Session, is_read: bool
) -> None:
    run = Lockstep(bundle, session, 2)
    works = []
    for pair in run.pairs:
        for slot in range(3):
            pair.put(slot)
        while pair.ours.idle_step():
            pass
    while is_read and run.deferred.read_some((2,)):
        pass
    for pair in run.pairs:
        pair.put(3)
        work = pair.ours.begin()
        assert work is not None
        assert work.prewarmed
        works.append((pair, work))
    assert [work.prewarmed for _, work, _ in run.batcher.finish(works)] == [is_read, is_read]


class Priced(CountingSession):
    """A call costs 1 and something for each further row; rows of a batch may differ."""

    cost, by_row, differs, refuses = 0.0, 0.0, 0.0, math.inf
    moves = moves_after = 0.0

    def _pay(self, frame: Array) -> None:
        if len(frame) >= self.refuses:
            raise EnvironmentFault(f"no plan for {len(frame)}")
        self.cost += 1 + self.by_row * (len(frame) - 1)

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self._pay(frame)
        guess, after = super().step(frame, state)
        return guess, self._moved(after, self.moves)

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
        self._pay(frame)
        frames, after = super().forecast(frame, state)
        if len(frame) > 1:
            frames = frames + np.float32(self.differs)
        return frames, self._moved(after, self.moves_after)

    def _moved(self, state: StateHandle, by: float) -> StateHandle:
        if state.batch == 1 or by == 0:
            return state
        arrays = {name: array + by for name, array in self.state_arrays(state).items()}
        return self.state_from_arrays(arrays)


@pytest.fixture
def priced(session: Session, monkeypatch: pytest.MonkeyPatch) -> Priced:
    """A session whose cost stands for the time that its calls take."""
    made = Priced(session)

    def cost_of(call: Callable[[Any], object], given: Any) -> float:
        before = made.cost
        call(given)
        return made.cost - before

    monkeypatch.setattr("stpl_runtime.streaming.continuous.batcher._seconds", cost_of)
    return made


@pytest.mark.parametrize(
    ("streams", "prices", "sizes", "gap"),
    [
        (6, {}, (6, 4, 2), 0.0),
        (1, {}, (), 0.0),
        (100, {}, (32, 16, 8, 4, 2), 0.0),
        (4, {"by_row": 1.0}, (), 0.0),
        (4, {"by_row": 0.93}, (4,), 0.0),  # 3.79 times a single call; 1.93 is above 0.95 * 2
        (4, {"refuses": 3}, (2,), 0.0),
        (4, {"differs": 1e-9}, (4, 2), 0.0),  # lost in the rounding of most, and allowed
        (4, {"differs": 1e-7}, (4, 2), 1e-7),
        (4, {"differs": 1e-3}, (), 0.0),
        (4, {"differs": np.nan}, (), 0.0),
        (4, {"moves": 1.0}, (), 0.0),
    ],
)
def test_a_size_is_used_only_where_it_gains_and_is_near_enough(
    bundle: Bundle,
    priced: Priced,
    streams: int,
    prices: Mapping[str, float],
    sizes: tuple[int, ...],
    gap: float,
) -> None:
    for name, value in prices.items():
        setattr(priced, name, value)
    limits = Limits(np.full(3, 1e-6), np.zeros(3))
    manifest = bundle.manifest
    batcher = ContinuousBatcher(DeferredSession(priced), manifest, 3, limits=limits)
    batcher.measure(streams)
    assert batcher.sizes == sizes
    assert batcher.gap == pytest.approx(gap, rel=0.5, abs=1e-8)


@pytest.mark.parametrize(
    ("prices", "used"),
    [
        ({}, True),
        ({"differs": 1e-7}, False),
        ({"moves": 1e-6}, False),
        ({"moves_after": 1e-6}, False),
    ],
)
def test_a_carried_state_takes_batches_with_the_same_bits_only(
    bundle: Bundle, priced: Priced, prices: Mapping[str, float], used: bool
) -> None:
    for name, value in prices.items():
        setattr(priced, name, value)
    batcher = ContinuousBatcher(DeferredSession(priced), bundle.manifest, 3, limits=None)
    batcher.measure(2)
    assert batcher.sizes == ((2,) if used else ())


def test_one_stream_that_is_not_finite_leaves_the_others_alone(
    bundle: Bundle, session: Session
) -> None:
    class OneBad(CountingSession):
        def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, StateHandle]:
            frames, after = super().forecast(frame, state)
            frames[frame.max(axis=(1, 2, 3)) == 1.0] = np.nan
            return frames, after

    deferred = DeferredSession(OneBad(session))
    batcher = ContinuousBatcher(deferred, bundle.manifest, 3, limits=NO_LIMITS)
    batcher.sizes = (2,)
    works = []
    for value in (0.5, 1.0):
        nowcaster = Nowcaster(bundle, deferred, cadence_s=CADENCE_S)
        for n in range(4):
            nowcaster.put(Frame(slot_time(n), np.full((1, 16, 16), value, np.float32)))
        work = nowcaster.begin()
        assert work is not None
        works.append((str(value), work))
    results = {whose: result for whose, _, result in batcher.finish(works)}
    assert isinstance(results["1.0"], AccuracyError)
    assert not isinstance(results["0.5"], AccuracyError)


@pytest.mark.parametrize("graph", ["step", "forecast"])
def test_an_engine_that_fails_names_the_streams_of_the_call(
    bundle: Bundle, session: Session, graph: str
) -> None:
    batcher = ContinuousBatcher(
        DeferredSession(FailingInBatches(session, graph)), bundle.manifest, 3, limits=NO_LIMITS
    )
    batcher.sizes = (2,)
    works = [(name, batcher._probe(n)) for n, name in enumerate(("north", "south", "west"))]
    with pytest.raises(StplError, match=r"no nowcast of north, south, which.*out of memory") as one:
        list(batcher.finish(works))
    assert one.value.exit_code == 4
    assert "--batch-wait" in one.value.fix


def test_chances_are_batched_too(
    bundle: Bundle, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Likely(CountingSession):
        """Gives chances beside its frames: what the state holds."""

        def outputs(self, state: StateHandle, names: Sequence[str]) -> Mapping[str, Array]:
            arrays = [*self.inner.state_arrays(state).values()]
            rows = np.stack([array.reshape(len(array), -1)[:, :128] for array in arrays[:2]], 1)
            values = np.abs(np.tanh(rows)).reshape(len(rows), 2, 1, 8, 16)  # (B, Q, C, H, W)
            return dict.fromkeys(names, values)

    for module in ("predict", "nowcaster"):
        monkeypatch.setattr(
            f"stpl_runtime.nowcasting.{module}.exceedance_of",
            lambda _: SimpleNamespace(name="chances", levels=(0.1, 0.5)),
        )
    likely = Likely(session)
    deferred = DeferredSession(likely)
    batcher = ContinuousBatcher(deferred, bundle.manifest, 3, chances=True, limits=NO_LIMITS)
    batcher.sizes = (3,)
    works = [(str(n), batcher._probe(n)) for n in range(3)]
    steps = likely.steps
    together = [result for _, _, result in batcher.finish(works)]
    assert likely.steps - steps == 3 + 3  # the past, and the lead times
    for n, row in enumerate(together):
        (alone,) = batcher._single(batcher._probe(n))
        assert not isinstance(row, AccuracyError)
        assert not isinstance(alone, AccuracyError)
        assert row[2] is not None
        assert alone[2] is not None
        assert row[2].shape == (3, 2, 1, 8, 16)
        np.testing.assert_array_equal(row[0], alone[0])
        np.testing.assert_array_equal(row[2], alone[2])
