"""What stands in for a missing frame: the frame before it, or the model's own forecast of it.

A stand-in is never counted as a frame, is flagged in every nowcast that depends on it, and gives
way to the real frame when that comes late. The newest frame is always a real one.
"""

from __future__ import annotations

from collections.abc import Callable

from stpl_core.codec import Array
from stpl_core.frames import Frame
from stpl_core.options import OnGap
from stpl_runtime.nowcasting.window import Entry, Window

Forecast = Callable[[int, int], "Array | None"]
"""(slot, n) -> the n frames after that slot, `(n, C, H, W)` physical units; None: none is had."""


def most_stand_ins(context: int) -> int:
    """How many of a window's T frames may be stand-ins: half of them."""
    return context // 2


class StandIns:
    """Fills the holes of one window."""

    def __init__(self, window: Window, on_gap: OnGap, forecast: Forecast) -> None:
        """Prepare.

        Args:
            window: with a reserve where `on_gap` is not `reset`.
            on_gap: `reset` fills nothing; `hold` repeats the frame before; `bridge` takes the
                forecast, and the frame before where there is no forecast (at the start).
            forecast: asked with `bridge` only.
        """
        self._window, self._on_gap, self._forecast = window, on_gap, forecast

    def possible(self) -> bool:
        """Whether the newest slot's window is complete, or would be with stand-ins."""
        holes = self._holes()
        if not holes:
            return holes is not None
        newest, context = self._window.newest, self._window.context
        assert newest is not None
        if self._on_gap == "reset" or self._window.entry(holes[0] - 1) is None:
            return False
        window = (self._window.entry(slot) for slot in range(newest - context + 1, newest))
        standing = sum(entry is None or bool(entry.how) for entry in window)
        return standing <= most_stand_ins(context)

    def fill(self) -> None:
        """Fill the holes of a window that is `possible`, the oldest first."""
        holes = self._holes() or ()
        for n, slot in enumerate(holes):
            before = self._window.entry(slot - 1)
            assert before is not None, "possible() was asked"
            if before.slot not in holes[:n]:  # the first of a run of holes
                length = _run(holes[n:])
                frames = self._forecast(before.slot, length) if self._on_gap == "bridge" else None
                self._fill_run(before, length, frames)

    def _fill_run(self, before: Entry, length: int, frames: Array | None) -> None:
        grid = self._window.grid
        assert grid is not None
        for k in range(length):
            slot, old = before.slot + 1 + k, before.frame
            frame = Frame(
                valid_time=grid.time(slot),
                data=old.data if frames is None else frames[k],
                mask=old.mask,
                grid=old.grid,
                standard_name=old.standard_name,
                notes=old.notes,
                source_id=old.source_id,
            )
            self._window.stand_in(slot, frame, "held" if frames is None else "bridged")

    def _holes(self) -> tuple[int, ...] | None:
        """The empty slots of the newest slot's window; None before the first frame."""
        newest = self._window.newest
        if newest is None:
            return None
        slots = range(newest - self._window.context + 1, newest)
        return tuple(slot for slot in slots if self._window.entry(slot) is None)


def _run(slots: tuple[int, ...]) -> int:
    """How many of the first slots follow one another."""
    return next((n for n in range(1, len(slots)) if slots[n] != slots[n - 1] + 1), len(slots))
