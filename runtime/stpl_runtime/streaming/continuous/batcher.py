"""Which batches are used, and their nowcasts: the frames of the past are read in the same calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stpl_core.bundle import Bundle, Manifest
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, EnvironmentFault, StplError
from stpl_runtime.nowcasting.nowcaster import Work
from stpl_runtime.nowcasting.predict import finish
from stpl_runtime.proof.reference import load_reference
from stpl_runtime.proof.tolerance import lead_tolerance, output_tolerance
from stpl_runtime.streaming.batching import GAIN, ROUNDS, Batcher, Result, split
from stpl_runtime.streaming.continuous.deferred import Deferred, DeferredSession
from stpl_runtime.streaming.stream import Stream

LARGEST = 32
"""No larger batch is tried."""
_ENOUGH_S = 1.0
"""A size that was timed for so long is not timed again: large models would start slowly."""

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How far a row of a batch may be from a single call, model units, at each lead time."""

    frames: NDArray[np.float64]
    """`(K,)`"""
    chances: NDArray[np.float64]
    """`(K,)`; of the output that has the least."""


def limits_of(bundle: Bundle, precision: str) -> Limits:
    """What the bundle allows an engine beside PyTorch.

    Args:
        bundle: an opened bundle, as it was exported.
        precision: see `stpl_runtime.engine.precision_of`.
    """
    reference = load_reference(bundle)
    leads = range(bundle.manifest.horizon)
    frames = np.array([lead_tolerance(reference, precision, lead) for lead in leads])  # (K,)
    outputs = [output_tolerance(reference, precision, name) for name in reference.outputs]
    return Limits(frames, np.min(outputs, axis=0) if outputs else np.zeros_like(frames))


class ContinuousBatcher(Batcher):
    """Batches whole nowcasts, any horizon and chances too; see `Batcher`."""

    def __init__(
        self,
        session: DeferredSession,
        manifest: Manifest,
        horizon: int,
        *,
        chances: bool = False,
        limits: Limits | None,
    ) -> None:
        """Batch nothing until `measure` or `sizes` says so.

        Args:
            session: that of the streams' nowcasters.
            manifest: its bundle's.
            horizon: frames to predict.
            chances: those of events are made too.
            limits: None: only the same bits will do, since states are carried on.
        """
        super().__init__(session, manifest, horizon, chances=chances)
        self._deferred, self._limits = session, limits

    def measure(self, streams: int) -> None:
        """Try batches of 2, 4, 8 ... and of all streams, and keep some.

        A size is kept where whole nowcasts, steps and copies included, take less time than as many
        single ones, and each row is as near to its single call as `limits` has it.
        """
        sizes = _sizes(streams)
        singles = [self._single(self._probe(n))[0] for n in range(max(sizes, default=0))]
        gaps = {size: self._gap(singles[:size]) for size in sizes}
        kept = [size for size in sizes if gaps[size] < math.inf and self._gains(size)]
        self.sizes = tuple(reversed(kept))
        self.gap = max((gaps[size] for size in kept), default=0.0)

    def finish(self, works: Sequence[tuple[T, Work]]) -> Iterator[tuple[T, Work, Result]]:
        """See `Batcher`; a past that is only put aside was not run ahead."""
        return super().finish([(whose, _as_it_is(work)) for whose, work in works])

    def _together(self, group: Sequence[tuple[T, Work]]) -> list[Result]:
        works = [work for _, work in group]
        try:
            return self._run(works)
        except AccuracyError:  # of some: the others have their nowcasts
            return [result for work in works for result in self._single(work)]
        except StplError as error:
            names = ", ".join(
                whose.name if isinstance(whose, Stream) else str(whose) for whose, _ in group
            )
            raise EnvironmentFault(
                f"no nowcast of {names}, which ran in one call: {error.found}",
                expected=error.expected or "an engine that runs such a batch, as at the start",
                fix="the same without --batch-wait",
            ) from error

    def _run(self, works: Sequence[Work]) -> list[Result]:
        """All in one call.

        Raises:
            AccuracyError: the engine gave NaN or infinity in one of them.
        """
        session, count = self._deferred.inner, len(works)
        state = self._deferred.together([work.state for work in works], self.sizes)
        frame = np.concatenate([work.frame for work in works])  # (B, C, H, W)
        made = finish(
            session, self._manifest, frame, state, self._horizon, chances=self._chances
        )  # (B, K, C, H, W)
        after: list[Deferred | None] = [None] * count
        if made.after is not None and self._limits is None:  # a window starts from zero
            after = [Deferred(part) for part in split(session, made.after)]
        likely: list[Array | None] = [None] * count
        if made.chances is not None:
            likely = list(made.chances)  # each (K, Q, C, H, W)
        return list(zip(made.frames, after, likely, strict=True))

    def _probe(self, n: int) -> Work:
        """The work of a nowcast whose whole past is yet to be read; another one for each n."""
        shape = (self._manifest.context, 1, *self._manifest.frame)
        frames = np.random.default_rng(n).random(shape, dtype=np.float32)  # (T, 1, C, H, W)
        state = Deferred(self._deferred.inner.zero_state(), list(frames[:-1]))
        return Work((), frames[-1], state, prewarmed=False, again=False)

    def _probes(self, size: int) -> list[Work]:
        return [self._probe(n) for n in range(size)]

    def _gap(self, singles: Sequence[Result]) -> float:
        """The greatest difference of a batch from single calls; infinite where it is too great."""
        size = len(singles)
        try:
            rows = self._run(self._probes(size))
            if self._limits is None and not self._same_states(rows, singles):
                return math.inf
        except StplError:  # this engine has no such batch
            return math.inf
        return max(self._row_gap(*pair) for pair in zip(rows, singles, strict=True))

    def _row_gap(self, row: Result, single: Result) -> float:
        if isinstance(row, AccuracyError) or isinstance(single, AccuracyError):
            return math.inf
        nothing = np.zeros(1)
        limits = self._limits or Limits(nothing, nothing)
        gap = _checked_gap(row[0], single[0], limits.frames)
        if row[2] is None or single[2] is None:
            return gap
        return max(gap, _checked_gap(row[2], single[2], limits.chances))

    def _same_states(self, rows: Sequence[Result], singles: Sequence[Result]) -> bool:
        """Whether the states before and after the newest frame have the same bits."""
        session, size = self._deferred.inner, len(rows)
        before = self._deferred.together([work.state for work in self._probes(size)], self.sizes)
        pairs = [
            (part, self._deferred.read(work.state))
            for part, work in zip(split(session, before), self._probes(size), strict=True)
        ]
        for row, single in zip(rows, singles, strict=True):
            if isinstance(row, AccuracyError) or isinstance(single, AccuracyError):
                return False
            if row[1] is not None and single[1] is not None:
                pairs.append((self._deferred.read(row[1]), self._deferred.read(single[1])))
        for one, other in pairs:
            ours, theirs = session.state_arrays(one), session.state_arrays(other)
            if not all(np.array_equal(ours[name], theirs[name]) for name in ours):
                return False
        return True

    def _gains(self, size: int) -> bool:
        """Whether a batch is faster than as many single calls; the two take turns."""
        together: list[float] = []
        single: list[float] = []
        while len(together) < ROUNDS and sum(together) < _ENOUGH_S:
            together.append(_seconds(self._run, self._probes(size)))
            single.append(_seconds(self._single, self._probe(0)))
        return float(np.median(together)) <= GAIN * size * float(np.median(single))


def _sizes(streams: int) -> list[int]:
    """Powers of two and all of them, rising: a group of another size is split up."""
    most = min(streams, LARGEST)
    powers = (2**n for n in range(1, most.bit_length() + 1))
    return sorted({size for size in (*powers, most) if 2 <= size <= most})


def _as_it_is(work: Work) -> Work:
    state = work.state
    is_read = not (isinstance(state, Deferred) and state.frames)
    return replace(work, prewarmed=work.prewarmed and is_read)


def _checked_gap(ours: Array, theirs: Array, allowed: NDArray[np.float64]) -> float:
    """Of `(H, ...)` by lead time; a lead time beyond the last that has a limit has that one's."""
    apart = np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(axis=1)  # (H,)
    at = np.minimum(np.arange(len(apart)), len(allowed) - 1)
    return float(apart.max()) if bool((apart <= allowed[at]).all()) else math.inf


def _seconds(call: Callable[[Any], Any], given: Any) -> float:
    began = time.perf_counter()
    call(given)
    return time.perf_counter() - began
