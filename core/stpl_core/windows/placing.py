"""Where windows lie in an archive: contiguous, at the cadence, none across a split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.reader import Times

Indices = NDArray[np.int64]
"""(B,), numbers of windows or of frames."""

PARTS = ("training", "validation", "test")

OFF = 0.25
"""Steps that leave the cadence by more than this share of it break a run."""


@dataclass(frozen=True)
class Layout:
    """The shape of a window and how many there are."""

    length: int
    """Frames of a window, T + K."""
    every: int = 1
    """A window takes every n-th frame of the archive."""
    stride: int = 1
    """Frames of the archive between the starts of neighbouring windows."""

    @property
    def span(self) -> int:
        """Frames of the archive from a window's first to its last."""
        return (self.length - 1) * self.every + 1


def breaks(
    time: Times,
    sequence: NDArray[np.int32],
    usable: NDArray[np.bool_],
    cadence_s: float | None,
) -> NDArray[np.bool_]:
    """`(T,)`, True where a frame does not continue the one before it.

    Args:
        time: `(T,)`, rising.
        sequence: `(T,)`; frames of two sequences never belong to one window.
        usable: `(T,)`, False where a frame must be in no window.
        cadence_s: seconds from one frame to the next; None where there is one frame.
    """
    broken = np.ones(len(time), bool)
    if cadence_s is None:
        return broken
    nanoseconds = time.astype("datetime64[ns]").astype(np.int64)
    steps = np.diff(nanoseconds).astype(np.float64) / 1e9
    broken[1:] = np.abs(steps - cadence_s) > OFF * cadence_s
    broken[1:] |= np.diff(sequence) != 0
    broken[1:] |= ~(usable[1:] & usable[:-1])
    return broken


def place(
    broken: NDArray[np.bool_], usable: NDArray[np.bool_], layout: Layout, low: int, high: int
) -> Indices:
    """Starts of the windows that lie in the frames [low, high) as a whole.

    Starts count from the beginning of each run, so that a large stride does not skip short runs.

    Returns:
        `(count,)`, rising.
    """
    starts: list[NDArray[np.int64]] = []
    inside = np.arange(low, high)
    begins = inside[broken[low:high] | (inside == low)]
    ends = np.append(begins, high)[1:] if len(begins) else begins
    for begin, end in zip(begins, ends, strict=True):
        if usable[begin]:
            starts.append(np.arange(begin, end - layout.span + 1, layout.stride, dtype=np.int64))
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)


def by_time(
    broken: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    layout: Layout,
    validation: float,
    test: float,
) -> dict[str, Indices]:
    """Starts for training, validation and test: three blocks of time, in this order.

    Args:
        broken: see `breaks`.
        usable: frames that may be in a window.
        layout: of the windows.
        validation: share of the frames that are held out to choose weights.
        test: share of the frames, the last, that nothing here ever reads.
    """
    count = len(broken)
    last = count - round(count * test)
    first = last - round(count * validation)
    edges = (0, first, last, count)
    return {
        part: place(broken, usable, layout, low, high)
        for part, low, high in zip(PARTS, edges, edges[1:], strict=False)
    }


def as_published(
    broken: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    layout: Layout,
    split: NDArray[np.int8],
    validation: float,
) -> dict[str, Indices]:
    """Starts by the split that was published with the data, which labels windows by their start.

    Where it has no validation part, the last windows of the training part become one; then no
    training window shares a frame with it.

    Args:
        broken: see `breaks`.
        usable: frames that may be in a window.
        layout: of the windows.
        split: `(T,)`, 0 training, 1 validation, 2 test, of the window that starts there.
        validation: share of the training windows to hold out where none are published.
    """
    every = place(broken, usable, layout, 0, len(broken))
    parts = {part: every[split[every] == n] for n, part in enumerate(PARTS)}
    training = parts["training"]
    if len(parts["validation"]) == 0 and len(training) > 1:
        cut = training[len(training) - max(1, round(len(training) * validation))]
        parts["validation"] = training[training >= cut]
        parts["training"] = training[training + layout.span <= cut]
    return parts


def rows_before(
    time: Times, sequence: NDArray[np.int32], context: int, cadence_s: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Of every frame, the window of `context` frames that ends with it.

    Args:
        time: `(F,)`, rising.
        sequence: `(F,)`; frames of two sequences never belong to one window.
        context: T.
        cadence_s: seconds from one frame of a window to the next.

    Returns:
        `(F, T)`, the frames nearest to each due time; and `(F,)`, whether none of them is farther
        from it than `OFF` cadences.
    """
    rows, near = _nearest(time, np.arange(1 - context, 1), cadence_s)  # (F, T)
    whole = near.all(axis=1)
    whole &= (np.diff(rows, axis=1) > 0).all(axis=1)
    whole &= (sequence[rows] == sequence[:, None]).all(axis=1)
    return rows, whole


def rows_after(
    time: Times, sequence: NDArray[np.int32], horizon: int, cadence_s: float
) -> NDArray[np.int64]:
    """Of every frame, those that come after it.

    Args:
        time: `(F,)`, rising.
        sequence: `(F,)`; as in `rows_before`.
        horizon: K.
        cadence_s: seconds from one to the next.

    Returns:
        `(F, K)`, the frames nearest to each due time; -1 where none is near.
    """
    rows, near = _nearest(time, np.arange(1, horizon + 1), cadence_s)  # (F, K)
    near &= (rows > np.arange(len(rows))[:, None]) & (sequence[rows] == sequence[:, None])
    return np.where(near, rows, -1)


def _nearest(
    time: Times, steps: NDArray[np.int64], cadence_s: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`(F, steps)`: the frames nearest to so many cadences later; and whether they are near."""
    stamps = time.astype("datetime64[ns]").astype(np.int64)
    due = stamps[:, None] + np.round(steps * (cadence_s * 1e9)).astype(np.int64)
    after = np.clip(np.searchsorted(stamps, due), 1, max(1, len(stamps) - 1))
    after = np.minimum(after, len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    rows = np.where(due - stamps[before] <= stamps[after] - due, before, after).astype(np.int64)
    return rows, np.abs(stamps[rows] - due) <= OFF * cadence_s * 1e9
