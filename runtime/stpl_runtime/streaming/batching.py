"""Forecasts of several streams in one call, where that is faster and gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from stpl_core.bundle import Manifest
from stpl_core.errors import AccuracyError, StplError
from stpl_runtime.engine import Session, StateHandle
from stpl_runtime.nowcasting.nowcaster import Work
from stpl_runtime.nowcasting.predict import Finished, advance, finish

MOST = 8
"""No larger batch is tried."""
ROUNDS = 5
"""Of which the median is taken."""
GAIN = 0.95
"""A batch must take at most so much of the time of single calls."""

T = TypeVar("T")
Result = Finished | AccuracyError


class Batcher:
    """Makes forecasts, one by one or together; each has the bits of a single call either way."""

    def __init__(
        self, session: Session, manifest: Manifest, horizon: int, *, chances: bool = False
    ) -> None:
        """Batch nothing until `measure` or `sizes` says so.

        Args:
            session: shared by the streams.
            manifest: its bundle's.
            horizon: frames to predict; only the bundle's own K is batched, by `forecast`.
            chances: those of events are made too, and nothing is batched.
        """
        self._session, self._manifest, self._horizon = session, manifest, horizon
        self._chances = chances
        self.sizes: tuple[int, ...] = ()
        """Batch sizes that are used, falling."""
        self.gap = 0.0
        """Greatest difference from single calls that was seen in a size that is used; 0: none."""

    def measure(self, streams: int) -> None:
        """Try every batch size that so many streams can fill on this machine, and keep some.

        A size is kept where it beats as many single calls in time, copies of the state included,
        and every row of frames and state after it has the bits of its single call.
        """
        if self._horizon != self._manifest.horizon or self._chances:
            return
        kept = [size for size in range(2, min(streams, MOST) + 1) if self._pays(size)]
        self.sizes = tuple(reversed(kept))

    def finish(self, works: Sequence[tuple[T, Work]]) -> Iterator[tuple[T, Work, Result]]:
        """Make the forecasts of some streams; each comes as soon as it is there.

        Args:
            works: whose it is, and what `Nowcaster.begin` gave.

        Yields:
            Whose it is, its work, and frames `(K, C, H, W)` in model units with the state after
            the newest frame and the chances, as far as there are; or the error where they are not
            finite.
        """
        left = list(works)
        while left:
            size = next((size for size in self.sizes if size <= len(left)), 1)
            group, left = left[:size], left[size:]
            results = self._single(group[0][1]) if size == 1 else self._together(group)
            for (whose, work), result in zip(group, results, strict=True):
                yield whose, work, result

    def _single(self, work: Work) -> list[Result]:
        try:
            made = finish(
                self._session,
                self._manifest,
                work.frame,
                work.state,
                self._horizon,
                chances=self._chances,
            ).of_one()
        except AccuracyError as error:
            return [error]
        return [made]

    def _together(self, group: Sequence[tuple[T, Work]]) -> list[Result]:
        works = [work for _, work in group]
        frame = np.concatenate([work.frame for work in works])  # (B, C, H, W)
        frames, after = self._session.forecast(
            frame, joined(self._session, [work.state for work in works])
        )  # (B, K, C, H, W)
        if not np.isfinite(frames).all():
            return [result for work in works for result in self._single(work)]
        states = split(self._session, after)
        return [(one, state, None) for one, state in zip(frames, states, strict=True)]

    def _pays(self, size: int) -> bool:
        random = np.random.default_rng(size)
        shape = (1, *self._manifest.frame)
        one = self._session
        works = []
        try:
            for _ in range(size):
                seen, frame = random.random((2, *shape), dtype=np.float32)  # (1, C, H, W) each
                state = one.zero_state()
                if self._manifest.context > 1:
                    state = advance(one, seen, state)
                works.append((None, Work((), frame, state, prewarmed=False, again=False)))
            together = self._together(works)
        except StplError:  # this engine has no such batch
            return False
        single = [result for _, work in works for result in self._single(work)]
        if not all(_same(one, *pair) for pair in zip(together, single, strict=True)):
            return False
        took_together = _median_s(lambda: self._together(works))
        took_single = _median_s(lambda: [self._single(work) for _, work in works])
        return took_together <= GAIN * took_single


def exactness(gap: float) -> str:
    """What the rows of a batch have of single calls, in words."""
    return f"differences of at most {gap:.1e}" if gap else "the same bits"


def joined(session: Session, states: Iterable[StateHandle]) -> StateHandle:
    """One state of the whole batch."""
    arrays = [session.state_arrays(state) for state in states]
    return session.state_from_arrays(
        {name: np.concatenate([one[name] for one in arrays]) for name in arrays[0]}
    )


def split(session: Session, state: StateHandle) -> list[StateHandle]:
    """The states of a batch one by one."""
    arrays = session.state_arrays(state)
    return [
        session.state_from_arrays({name: array[n : n + 1] for name, array in arrays.items()})
        for n in range(state.batch)
    ]


def _same(session: Session, one: Result, other: Result) -> bool:
    """Whether two results have the same bits."""
    if isinstance(one, AccuracyError) or isinstance(other, AccuracyError):
        return False
    if one[1] is None or other[1] is None or not np.array_equal(one[0], other[0]):
        return False
    ours, theirs = session.state_arrays(one[1]), session.state_arrays(other[1])
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _median_s(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
