"""Frames that are put aside are read in the same order, alone or with those of other states."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np
import pytest

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_runtime.engine import JoinsOutputs, KeepsStates, Session, StateHandle, free_run
from stpl_runtime.engines.tiled import on_domain, tiling_of
from stpl_runtime.nowcasting.predict import advance
from stpl_runtime.streaming.batching import split
from stpl_runtime.streaming.continuous.deferred import DeferredSession, _deferred, largest
from tests.runtime.conftest import picture
from tests.runtime.nowcasting.test_nowcaster import CountingSession


def model_frames(first: int, count: int) -> list[Array]:
    """Each `(1, C, H, W)`."""
    return [picture(first + n)[None] for n in range(count)]


def state_after(session: Session, frames: Sequence[Array]) -> StateHandle:
    state = session.zero_state()
    for frame in frames:
        state = advance(session, frame, state)
    return state


def same(session: Session, one: StateHandle, other: StateHandle) -> bool:
    ours, theirs = session.state_arrays(one), session.state_arrays(other)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_state_reads_its_frames_when_it_is_asked_for(session: Session) -> None:
    counting = CountingSession(session)
    deferred = DeferredSession(counting)
    past, newest = model_frames(0, 3), picture(3)[None]
    state = state_after(deferred, past)
    assert counting.steps == 0
    expected, after = session.forecast(newest, state_after(session, past))
    frames, ours = deferred.forecast(newest, state)
    assert counting.steps == 3
    np.testing.assert_array_equal(frames, expected)
    assert all(
        np.array_equal(array, session.state_arrays(after)[name])
        for name, array in deferred.state_arrays(ours).items()
    )
    np.testing.assert_array_equal(deferred.forecast(newest, state)[0], expected)  # left as it was
    assert counting.steps == 3
    guess, _ = deferred.step(newest, state_after(deferred, past))
    np.testing.assert_array_equal(guess, session.step(newest, state_after(session, past))[0])
    copy = deferred.state_from_arrays(deferred.state_arrays(state_after(deferred, past)))
    np.testing.assert_array_equal(deferred.forecast(newest, copy)[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_it_is_taken_for_the_session_that_it_wraps(
    bundle: Bundle, session: Session, size: tuple[int, int]
) -> None:
    whole, inner = on_domain(bundle, session, size)
    deferred = DeferredSession(inner)
    assert (deferred.engine, deferred.provider) == (session.engine, session.provider)
    assert tiling_of(deferred) == tiling_of(inner)
    assert not isinstance(deferred, KeepsStates)  # its states can be copied
    assert isinstance(deferred, JoinsOutputs)
    frame = picture(0, (1, *size))[None]
    name = whole.manifest.state[0].name
    if tiling_of(inner) is None:
        (one,) = free_run(deferred, frame, deferred.zero_state(), 1, [name])
        (other,) = free_run(inner, frame, inner.zero_state(), 1, [name])
        np.testing.assert_array_equal(one[1][name], other[1][name])


def test_states_read_one_frame_each_in_one_call_those_with_most_first(session: Session) -> None:
    counting = CountingSession(session)
    deferred = DeferredSession(counting)
    counts = (3, 1, 2)
    states = [state_after(deferred, model_frames(10 * n, count)) for n, count in enumerate(counts)]
    left = []
    while deferred.read_some((2,)):
        left.append(sorted(len(_deferred(state).frames) for state in states))
    assert left == [[1, 1, 2], [0, 1, 1], [0, 0, 0]]
    assert counting.steps == 3
    for n, (state, count) in enumerate(zip(states, counts, strict=True)):
        alone = state_after(session, model_frames(10 * n, count))
        assert same(session, deferred.read(state), alone)
    assert counting.steps == 3  # nothing was left


def test_what_nobody_needs_is_not_read(session: Session) -> None:
    counting = CountingSession(session)
    deferred = DeferredSession(counting)
    state = state_after(deferred, model_frames(0, 2))
    del state
    gc.collect()
    assert not deferred.read_some((2,))
    assert counting.steps == 0


@pytest.mark.parametrize("counts", [(3, 3, 3), (0, 0, 0), (3, 1, 2), (0, 3, 0)])
def test_states_that_are_read_together_are_those_of_single_calls(
    session: Session, counts: tuple[int, ...]
) -> None:
    counting = CountingSession(session)
    deferred = DeferredSession(counting)
    states = [state_after(deferred, model_frames(10 * n, count)) for n, count in enumerate(counts)]
    for _ in range(2):  # the states may be used after it
        whole = deferred.together(states, (3, 2))
        assert whole.batch == len(counts)
        for n, (part, count) in enumerate(zip(split(session, whole), counts, strict=True)):
            assert same(session, part, state_after(session, model_frames(10 * n, count)))
    if counts == (3, 3, 3):
        assert counting.steps == 2 * 3  # three at once, twice
    for n, (state, count) in enumerate(zip(states, counts, strict=True)):
        assert same(
            session, deferred.read(state), state_after(session, model_frames(10 * n, count))
        )


def test_the_largest_batch_that_is_filled() -> None:
    assert [largest((8, 4, 2), count) for count in (1, 2, 3, 7, 8, 20)] == [1, 2, 2, 4, 8, 8]
    assert largest((), 5) == 1
