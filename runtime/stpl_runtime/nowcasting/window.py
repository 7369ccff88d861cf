"""The sliding window of the newest T slots: where each frame goes, or why it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import numpy as np

from stpl_core.codec import Array, FrameCodec
from stpl_core.errors import UsageError
from stpl_core.frames import Frame
from stpl_runtime.ledger import Fate, Ledger
from stpl_runtime.nowcasting.cadence import ENOUGH, MOST, Between, learned_cadence
from stpl_runtime.nowcasting.time_line_restart import Misfits
from stpl_runtime.timing import TimeGrid, time_text, utc_now

_FOLLOW, _MEND = 0.4, 0.1
"""Parts of a frame's distance from its slot by which a learned phase and cadence are corrected."""

Verdict = Literal[Fate, "pending"]


@dataclass(frozen=True)
class Entry:
    """A frame in its slot."""

    slot: int
    serial: int
    """Differs for every frame that was ever put in, also where one replaces another."""
    frame: Frame
    arrived: float | None
    """time.monotonic() when it was seen whole."""
    how: str = ""
    """"" observed; `held` or `bridged`: it stands in for one that is missing."""
    _converted: list[Array] = field(default_factory=list, init=False, repr=False, compare=False)

    def model_frame(self, codec: FrameCodec) -> Array:
        """The frame `(1, C, H, W)` in model units; no data is what the codec says it is.

        Converted once, whatever number of windows it is in: every call takes the same codec.
        """
        if not self._converted:
            data, mask = self.frame.data, self.frame.mask
            if mask is not None:
                data = np.where(mask, data, np.float32(np.nan))
            self._converted.append(np.ascontiguousarray(codec.model_from_physical(data)[None]))
        return self._converted[0]


@dataclass(frozen=True)
class Placed:
    """What `Window.put` did."""

    verdict: Verdict
    left: tuple[Entry, ...] = ()
    """Entries that fell out of the window, oldest first."""
    reason: str = ""
    """Why it is bad; empty for all others."""
    notice: str = ""
    """A gap, or a new time line, in words; mostly empty."""
    skipped_slots: int = 0
    """Slots of the time line between the newest one before and this one."""
    replaced: Entry | None = None
    """The stand-in whose place it took."""


@dataclass
class WindowState:
    """All that a window knows, for a state file."""

    grid: TimeGrid | None = None
    stated: bool = False
    """The cadence was not learned."""
    newest: int | None = None
    serial: int = 0
    gaps: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    learning: list[tuple[Frame, float | None]] = field(default_factory=list)
    """Frames of distinct times, from which the cadence is to be learned; pending."""
    between: Between = field(default_factory=Between)
    misfits: Misfits = field(default_factory=Misfits)


class Window:
    """The newest T slots of the cadence grid.

    The cadence is stated, or learned from the first three distinct times (two, where T is 1 or
    2); until then frames are pending. A learned cadence is mended as more frames come: it falls
    into parts when frames keep coming at a regular fraction between the slots.

    Time goes wrong at the sources, so there is a rule for what does not fit the time line:

    - a jump ahead of more than T slots is a gap, unless it is also ahead of the wall clock: then
      the frame is bad, since its clock is wrong;
    - older than the allowance is late; between the slots is dropped;
    - three such frames in a row that agree among themselves are a new time line, on which the
      window starts anew (old ones only where they come at the pace of the data: a camera whose
      clock was set back, not a backlog).
    """

    def __init__(
        self,
        context: int,
        ledger: Ledger,
        *,
        cadence_s: float | None = None,
        lateness: int | None = None,
        reserve: int = 0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Make an empty window.

        Args:
            context: T, its length in slots.
            ledger: each frame that is put in must have been received there before.
            cadence_s: seconds between slots; None learns it.
            lateness: a frame this many slots older than the newest is still taken; None: T - 1.
            reserve: entries that left are kept for so many slots more.
            clock: the wall clock.

        Raises:
            UsageError: a lateness outside 0 .. T - 1, or a cadence that is not positive.
        """
        self.context = context
        self.lateness = context - 1 if lateness is None else lateness
        if not 0 <= self.lateness < context:
            raise UsageError(
                f"--lateness {lateness}",
                expected=f"0 to {context - 1} slots (this model reads {context} frames)",
                fix=f"--lateness {context - 1}",
            )
        check_cadence(cadence_s)
        self._ledger, self._reserve, self._clock = ledger, reserve, clock
        self.stated_s = cadence_s
        """The cadence that was stated; None: it is learned."""
        self.state = WindowState(stated=cadence_s is not None)
        """What a state file keeps; to be replaced as a whole only."""

    @property
    def grid(self) -> TimeGrid | None:
        """The cadence grid; None until it is known."""
        return self.state.grid

    @property
    def newest(self) -> int | None:
        """The newest slot that was ever filled; None at the start."""
        return self.state.newest

    @property
    def gaps(self) -> int:
        """Times that the window had to start anew: after a gap, or on a new time line."""
        return self.state.gaps

    def put(self, frame: Frame, arrived: float | None = None) -> Placed:
        """Put a received frame where it belongs and settle it in the ledger."""
        if self.state.grid is None and self.stated_s is not None:
            self.state.grid = TimeGrid(self.stated_s, frame.valid_time)
        if self.state.grid is None:
            return self._learn(frame, arrived)
        return self._place(self.state.grid, frame, arrived)

    def entry(self, slot: int) -> Entry | None:
        """What is in a slot of the window or the reserve."""
        return self.state.entries.get(slot)

    def entries(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries of slots first .. last, up to the first one that is missing."""
        found = []
        for slot in range(first, last + 1):
            entry = self.state.entries.get(slot)
            if entry is None:
                break
            found.append(entry)
        return tuple(found)

    def complete(self) -> tuple[Entry, ...] | None:
        """The T entries that end in the newest slot; None where one is missing."""
        newest = self.state.newest
        if newest is None:
            return None
        found = self.entries(newest - self.context + 1, newest)
        return found if len(found) == self.context else None

    def stand_in(self, slot: int, frame: Frame, how: str) -> None:
        """Fill an empty slot with a frame that was not observed; no count changes."""
        assert slot not in self.state.entries
        self.state.serial += 1
        self.state.entries[slot] = Entry(slot, self.state.serial, frame, None, how)

    def _learn(self, frame: Frame, arrived: float | None) -> Placed:
        waiting = self.state.learning
        for n, (other, _) in enumerate(waiting):
            if other.valid_time == frame.valid_time:
                if not _same(frame, other):
                    waiting[n] = (frame, arrived)
                return self._settle("duplicate")
        waiting.append((frame, arrived))
        if len(waiting) < min(ENOUGH, max(2, self.context)):
            return Placed("pending")
        times = [other.valid_time for other, _ in waiting]
        cadence_s = learned_cadence(times, last=len(waiting) >= MOST)
        if cadence_s is None:
            return Placed("pending")
        waiting.sort(key=lambda item: item[0].valid_time)
        grid = self.state.grid = TimeGrid(cadence_s, waiting[0][0].valid_time)
        self.state.learning = []
        placed = {id(item): self._place(grid, item, when) for item, when in waiting}
        left = tuple(entry for one in placed.values() for entry in one.left)
        here = placed[id(frame)]
        skipped = sum(one.skipped_slots for one in placed.values())
        used = sum(one.verdict == "used" for one in placed.values())
        return Placed(here.verdict, left, here.reason, here.notice, skipped + max(0, used - 1))

    def _place(self, grid: TimeGrid, frame: Frame, arrived: float | None) -> Placed:
        slot, newest = grid.slot(frame.valid_time), self.state.newest
        if newest is None:
            return self._fit(0 if slot is None else slot, frame, arrived)
        if slot is None:
            return self._misfit("dropped", "", grid, frame, arrived)
        if slot < newest - self.lateness:
            return self._misfit("late", "", grid, frame, arrived)
        if slot > newest + self.context:
            ahead = (frame.valid_time - self._clock()).total_seconds()
            if ahead > grid.cadence_s:
                reason = (
                    f"{frame.source_id} is dated {time_text(frame.valid_time)}, "
                    f"{ahead:.0f} s ahead of this machine's clock"
                )
                return self._misfit("bad", reason, grid, frame, arrived)
            self.state.gaps += 1
            notice = f"gap: {slot - newest - 1} slots without a frame; the window starts anew"
            return self._fit(slot, frame, arrived, notice)
        return self._fit(slot, frame, arrived)

    def _misfit(
        self, fate: Fate, reason: str, grid: TimeGrid, frame: Frame, arrived: float | None
    ) -> Placed:
        """Settle it, or start anew on a time line or with a cadence that it belongs to."""
        newest, time, cadence_s = self.state.newest, frame.valid_time, grid.cadence_s
        assert newest is not None
        parts = self.state.between.add(grid.offset(time)) if fate == "dropped" else 0
        if parts and not self.state.stated:
            cadence_s /= parts
            notice = f"cadence {cadence_s:g} s, not {grid.cadence_s:g} s: the window starts anew"
        elif self.state.misfits.add(
            time, arrived, cadence_s, reach=self.context, old=time <= grid.time(newest)
        ):
            notice = f"new time line from {time_text(time)} on: the window starts anew"
        else:
            return self._settle(fate, reason=reason)
        self.state.gaps += 1
        slot = newest + self.context + 1  # shares no window with what was
        self.state.grid = TimeGrid.through(time, slot, cadence_s)
        self.state.between = Between()
        return self._fit(slot, frame, arrived, notice, jumped=True)

    def _fit(
        self,
        slot: int,
        frame: Frame,
        arrived: float | None,
        notice: str = "",
        *,
        jumped: bool = False,
    ) -> Placed:
        """Put a frame into its slot."""
        state = self.state
        state.misfits.clear()
        state.between.fits()
        there = state.entries.get(slot)
        stands_in = there is not None and bool(there.how)
        if there is None or stands_in or not _same(frame, there.frame):
            state.serial += 1
            state.entries[slot] = Entry(slot, state.serial, frame, arrived)
        if there is not None and not stands_in:
            return self._settle("duplicate")
        before = state.newest
        skipped = 0
        if before is None or slot > before:
            state.newest = slot
            skipped = 0 if before is None or jumped else slot - before - 1
            self._follow(slot, frame.valid_time)
        assert state.newest is not None
        left = self._forget(before, state.newest)
        return self._settle("used", left, "", notice, skipped, there if stands_in else None)

    def _follow(self, slot: int, time: datetime) -> None:
        """Let a learned grid follow the newest frame, so that small errors never add up."""
        grid = self.state.grid
        if grid is None or self.state.stated or abs(grid.offset(time) - slot) < 1e-3:
            return
        away = (grid.offset(time) - slot) * grid.cadence_s
        held = grid.time(slot) + timedelta(seconds=_FOLLOW * away)
        self.state.grid = TimeGrid.through(held, slot, grid.cadence_s + _MEND * away)

    def _forget(self, before: int | None, newest: int) -> tuple[Entry, ...]:
        """What fell out of the window just now; drops what fell out of the reserve."""
        entries, last = self.state.entries, newest - self.context
        first = last if before is None else before - self.context
        left = tuple(entries[slot] for slot in sorted(entries) if first < slot <= last)
        for slot in [slot for slot in entries if slot <= last - self._reserve]:
            del entries[slot]
        return left

    def _settle(
        self,
        fate: Fate,
        left: tuple[Entry, ...] = (),
        reason: str = "",
        notice: str = "",
        skipped: int = 0,
        replaced: Entry | None = None,
    ) -> Placed:
        self._ledger.settle(fate)
        return Placed(fate, left, reason, notice, skipped, replaced)


def _same(one: Frame, other: Frame) -> bool:
    """Whether two frames of one slot carry the same values."""
    if (one.mask is None) != (other.mask is None):
        return False
    masks = one.mask is None or np.array_equal(one.mask, other.mask)  # type: ignore[arg-type]
    return masks and np.array_equal(one.data, other.data, equal_nan=True)  # NaN: not observed


def check_cadence(cadence_s: float | None) -> None:
    """Raise UsageError for a cadence that is not a positive number of seconds."""
    if cadence_s is not None and not 0 < cadence_s < float("inf"):
        raise UsageError(
            f"--cadence {cadence_s:g}", expected="seconds above 0", fix="--cadence 300"
        )
