"""Joins the pieces of many files: one shape, unit and grid, every time once, sequences counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stpl_core.errors import FrameError
from stpl_core.reader import Piece, Times

EPOCH = np.datetime64("1970-01-01T00:00:00", "ns")
"""Where the times begin of frames that have none of their own."""


@dataclass(frozen=True)
class Joined:
    """A piece in its place."""

    piece: Piece
    time: Times
    """`(n,)`, observed or, from EPOCH on, counted."""
    sequence: NDArray[np.int32]
    """`(n,)`; frames of two sequences never belong to one window."""
    file: NDArray[np.int32]
    """`(n,)`, number of the file in `Joiner.files`."""


class Joiner:
    """Takes pieces one after the other and refuses what does not fit the first."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.first: Piece | None = None
        self.files: list[str] = []
        self._seen: dict[int, str] = {}
        self._sequence: int | None = None
        self._start = self._next = EPOCH  # of the sequence, and of the frame that comes next

    def add(self, piece: Piece) -> Joined:
        """Check a piece against the first and give it times and a sequence number.

        Raises:
            FrameError: another size, unit, quantity or grid than the first file's, a time that
                another file has, or times in one and none in the other. Names the file.
        """
        if self.first is None:
            self.first = piece
        else:
            self._check(piece, self.first)
        if not self.files or self.files[-1] != piece.source:
            self.files.append(piece.source)
        breaks = np.zeros(len(piece.frames), np.int64)
        if piece.begins is not None:
            breaks = np.cumsum(piece.begins)
            breaks -= self._sequence is None and breaks[0]  # the very first begins no second one
        sequence = ((self._sequence or 0) + breaks).astype(np.int32)
        if piece.time is not None:
            time = self._observed(piece, piece.time)
        elif piece.elapsed_s is not None:
            time = self._by_clock(piece, breaks, piece.elapsed_s)
        else:
            time = self._counted(piece, breaks)
        self._sequence = int(sequence[-1])
        file = np.full(len(sequence), len(self.files) - 1, np.int32)
        return Joined(piece, time, sequence, file)

    def _check(self, piece: Piece, first: Piece) -> None:
        facts: tuple[tuple[str, object, object], ...] = (
            ("frames of (channels, height, width)", piece.frames.shape[1:], first.frames.shape[1:]),
            ("units", piece.quantity.units, first.quantity.units),
            ("quantity", piece.quantity.name, first.quantity.name),
            ("channels", piece.quantity.channels, first.quantity.channels),
            ("times", _kind(piece), _kind(first)),
            ("accumulation", piece.quantity.accumulation_s, first.quantity.accumulation_s),
        )
        for what, found, expected in facts:
            if found != expected:
                raise FrameError(
                    f"{piece.source} has {what} {found}",
                    expected=f"{expected} as in {first.source}",
                    fix="keep one kind of file in the folder",
                )
        if not piece.grid.same_as(first.grid):
            raise FrameError(
                f"{piece.source} lies on a grid with the corners {piece.grid.corners}",
                expected=f"{first.grid.corners} as in {first.source}",
                fix="keep one grid in the folder",
            )

    def _observed(self, piece: Piece, time: Times) -> Times:
        times: Times = time.astype("datetime64[ns]")
        for stamp in times.astype(np.int64).tolist():
            if stamp in self._seen:
                raise FrameError(
                    f"{piece.source} has a frame of {np.datetime64(stamp, 'ns').astype('<M8[s]')}",
                    expected=f"every time once; {self._seen[stamp]} has this one too",
                    fix="remove one of the two; of forecasts, choose one lead time with --select",
                )
            self._seen[stamp] = piece.source
        return times

    def _counted(self, piece: Piece, breaks: NDArray[np.int64]) -> Times:
        """Times from EPOCH on; a break leaves a step out, so that the times show it too."""
        step = _step(piece)
        count = np.arange(len(breaks))
        times = np.asarray(self._next + (breaks + count) * step, dtype="datetime64[ns]")
        self._next = times[-1] + step
        return times

    def _by_clock(
        self, piece: Piece, breaks: NDArray[np.int64], elapsed_s: NDArray[np.float64]
    ) -> Times:
        """Times of sequences that have a clock, which runs on from one piece into the next."""
        step = _step(piece)
        elapsed = np.round(elapsed_s * 1e9).astype("timedelta64[ns]")
        begins = np.zeros(len(breaks), bool) if piece.begins is None else piece.begins
        times = np.empty(len(breaks), "datetime64[ns]")
        for n in range(len(breaks)):
            if begins[n]:
                left_out = breaks[n] - (breaks[n - 1] if n else 0)
                self._start = self._next + left_out * step
            times[n] = self._start + elapsed[n]
            self._next = times[n] + step
        return times


def _step(piece: Piece) -> np.timedelta64:
    return np.timedelta64(round((piece.cadence_s or 1.0) * 1e9), "ns")


def _kind(piece: Piece) -> str:
    return "counted" if piece.time is None else "observed"
