"""A session that puts the frames of the past aside, so that several streams read them in one call.

Before its newest frame, a nowcast needs the state alone, and no guess. So `take_in` keeps a frame
beside the state, until a batch of states reads one each, or the state is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from stpl_core.codec import Array
from stpl_runtime.engine import Session, StateHandle, outputs_in
from stpl_runtime.engines.tiled import tiling_of
from stpl_runtime.nowcasting.predict import advance
from stpl_runtime.streaming.batching import joined, split


@dataclass(eq=False)
class Deferred:
    """A state, and the frames that it has yet to read."""

    state: StateHandle
    frames: list[Array] = field(default_factory=list)
    """Each `(B, C, H, W)`, model units, oldest first."""

    @property
    def batch(self) -> int:
        """Number of sequences in it."""
        return self.state.batch


class DeferredSession:
    """Keeps `stpl_runtime.engine.Session` over another session; its states are `Deferred`."""

    def __init__(self, session: Session) -> None:
        """Wrap a session whose states can be copied.

        Args:
            session: with the graphs open that will be called.
        """
        self.inner = session
        self.engine, self.provider = session.engine, session.provider
        self.tiling = tiling_of(session)
        if hasattr(session, "precision"):  # see `stpl_runtime.engine.precision_of`
            self.precision = session.precision
        self._behind: WeakSet[Deferred] = WeakSet()  # a state that nobody needs is never read

    def zero_state(self, batch: int = 1) -> Deferred:
        """See `Session`."""
        return Deferred(self.inner.zero_state(batch))

    def take_in(self, frame: Array, state: StateHandle) -> Deferred:
        """The state after a frame `(B, C, H, W)`, which is read later; uses `state` up."""
        found = _deferred(state)
        found.frames.append(frame)
        self._behind.add(found)
        return found

    def step(self, frame: Array, state: StateHandle) -> tuple[Array, Deferred]:
        """See `Session`."""
        guess, after = self.inner.step(frame, self.read(state))
        return guess, Deferred(after)

    def forecast(self, frame: Array, state: StateHandle) -> tuple[Array, Deferred]:
        """See `Session`."""
        frames, after = self.inner.forecast(frame, self.read(state))
        return frames, Deferred(after)

    def rollout(self, frames: Array) -> Array:
        """See `Session`."""
        return self.inner.rollout(frames)

    def outputs(self, state: StateHandle, names: Sequence[str]) -> Mapping[str, Array]:
        """See `stpl_runtime.engine.JoinsOutputs`."""
        return outputs_in(self.inner, self.read(state), names)

    def state_arrays(self, state: StateHandle) -> Mapping[str, NDArray[Any]]:
        """See `Session`."""
        return self.inner.state_arrays(self.read(state))

    def state_from_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> Deferred:
        """See `Session`."""
        return Deferred(self.inner.state_from_arrays(arrays))

    def close(self) -> None:
        """See `Session`."""
        self.inner.close()

    def read(self, state: StateHandle) -> StateHandle:
        """The wrapped session's state, once every frame is read that was kept beside it."""
        found = _deferred(state)
        while found.frames:
            found.state = advance(self.inner, found.frames.pop(0), found.state)
        return found.state

    def read_some(self, sizes: Sequence[int]) -> bool:
        """Read one frame of as many states as one call holds; those that have most go first.

        Args:
            sizes: of batches, falling.

        Returns:
            False where no state has any left.
        """
        behind = [state for state in self._behind if state.frames]
        if not behind:
            return False
        behind.sort(key=lambda state: -len(state.frames))
        self._read_one(behind[: largest(sizes, len(behind))])
        return True

    def together(self, states: Sequence[StateHandle], sizes: Sequence[int]) -> StateHandle:
        """The wrapped session's state of all, once every frame is read; a copy of its own.

        Args:
            states: at least one; they may be used after this.
            sizes: of batches, falling.
        """
        every = [_deferred(state) for state in states]
        least = min(len(state.frames) for state in every)
        while behind := [state for state in every if len(state.frames) > least]:
            self._read_one(behind[: largest(sizes, len(behind))])
        whole = joined(self.inner, [state.state for state in every])
        for n in range(least):
            frame = np.concatenate([state.frames[n] for state in every])  # (B, C, H, W)
            whole = advance(self.inner, frame, whole)
        return whole

    def _read_one(self, states: Sequence[Deferred]) -> None:
        """Read the oldest frame of each in one call."""
        frame = np.concatenate([state.frames.pop(0) for state in states])  # (B, C, H, W)
        if len(states) == 1:
            states[0].state = advance(self.inner, frame, states[0].state)
            return
        after = advance(self.inner, frame, joined(self.inner, [one.state for one in states]))
        for state, part in zip(states, split(self.inner, after), strict=True):
            state.state = part


def largest(sizes: Sequence[int], count: int) -> int:
    """The largest batch that so many fill; 1 where there is none."""
    return next((size for size in sizes if size <= count), 1)


def _deferred(state: StateHandle) -> Deferred:
    assert isinstance(state, Deferred)  # handles are opaque: this one was made here
    return state
