"""Turns frames into nowcasts, with the work done ahead of time where it can be.

`window` (exact): a nowcast is what the offline rollout of the newest T frames gives. T - 1 of its
steps read frames that are known before the newest one arrives; `idle_step` runs them one by one.
`carry`: the state goes on from frame to frame and is reset after a gap only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from stpl_core.bundle import Bundle
from stpl_core.codec import Array
from stpl_core.errors import AccuracyError, FrameError
from stpl_core.frames import Frame, masks_of, wrong_size
from stpl_core.options import ContextMode, OnGap
from stpl_runtime.chances import Chances, exceedance_of, thresholds_of
from stpl_runtime.engine import Session, StateHandle
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.past import CarriedPast, Past, WindowPast
from stpl_runtime.nowcasting.predict import (
    Finished,
    advance,
    finish,
    graphs_needed,
    made_by,
)
from stpl_runtime.nowcasting.stand_ins import StandIns, most_stand_ins
from stpl_runtime.nowcasting.window import Entry, Verdict, Window


@dataclass(frozen=True)
class Put:
    """What became of one frame."""

    verdict: Verdict
    reason: str = ""
    """Why it is bad; empty for all others."""
    notice: str = ""
    """A gap, or a new time line, in words; mostly empty."""


@dataclass(frozen=True)
class Work:
    """One forecast that is to be made: what `forecast` is given, and what for."""

    window: tuple[Entry, ...]
    frame: Array
    """The newest one, `(1, C, H, W)`, model units."""
    state: StateHandle
    """The state before it."""
    prewarmed: bool
    """Nothing else was left to run."""
    again: bool
    """The slot had a nowcast, which depended on a stand-in."""


@dataclass
class Tally:
    """What became of the issue times."""

    issued: int = 0
    """Nowcasts that were made, the first of each issue time."""
    skipped: int = 0
    """Complete windows that a newer frame overtook before their nowcast was made."""
    incomplete: int = 0
    """Newest slots that were overtaken while a frame of their window was missing."""
    standing_in: int = 0
    """Nowcasts that depend on a stand-in."""
    again: int = 0
    """Nowcasts made again because the frame came that had been stood in for."""


@dataclass
class NowcasterState:
    """What a nowcaster knows beside its window, for a state file."""

    tally: Tally = field(default_factory=Tally)
    done_slot: int | None = None
    """The newest slot whose nowcast was made, or tried."""
    replaced: bool = False
    """A real frame took the place of a stand-in that the newest nowcast depends on."""
    last: tuple[int, Array] | None = None
    """Slot and frames `(K, C, H, W)` of the newest nowcast, where it may have to stand in."""


class Nowcaster:
    """One stream of frames through a session. Not thread-safe: one thread puts and issues."""

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        *,
        horizon: int | None = None,
        mode: ContextMode = "window",
        cadence_s: float | None = None,
        lateness: int | None = None,
        on_gap: OnGap = "reset",
        ledger: Ledger | None = None,
        stream: str = "",
    ) -> None:
        """Start with an empty window.

        Args:
            bundle: the opened bundle.
            session: with the graphs of `graphs_needed(bundle.manifest, horizon)` open.
            horizon: frames to predict; None takes the bundle's K.
            mode: `window` or `carry`.
            cadence_s: seconds between frames; None takes the bundle's, or learns it.
            lateness: see `Window`.
            on_gap: see `StandIns`.
            ledger: where frames are counted as received; None makes one that `put` counts in.
            stream: its name among several.
        """
        self.manifest = manifest = bundle.manifest
        self.horizon = manifest.horizon if horizon is None else horizon
        graphs_needed(manifest, self.horizon)
        self._counts_arrivals = ledger is None
        self.ledger = ledger or Ledger()
        self.mode, self.on_gap, self.stream = mode, on_gap, stream
        self.window = Window(
            manifest.context,
            self.ledger,
            cadence_s=cadence_s or manifest.cadence_s,
            lateness=lateness,
            reserve=0 if on_gap == "reset" else 1 + most_stand_ins(manifest.context),
        )
        self.state = NowcasterState()
        """What a state file keeps; to be replaced as a whole only."""
        self._codec = manifest.codec
        self.session = session
        self.chances = False
        """Whether those of events are made too; see `add_chances`."""
        self.past: Past = self._new_past()
        self._stand_ins = StandIns(self.window, on_gap, self._bridge)
        self.made_by = made_by(bundle, session, mode)
        """How nowcasts are made."""

    def _new_past(self) -> Past:
        if self.mode == "window":
            return WindowPast(self.session, self._codec)
        uses_up = self.chances or self.horizon != self.manifest.horizon
        most = 2 * self.manifest.context
        return CarriedPast(self.session, self._codec, fork=uses_up, most=most)

    def add_chances(self) -> None:
        """Make the chances of events with every nowcast; before the first frame.

        Raises:
            UsageError: the model gives none.
        """
        exceedance_of(self.manifest)
        self.chances = True
        self.past = self._new_past()

    @property
    def issued(self) -> int:
        """Nowcasts that were made, the first of each issue time."""
        return self.state.tally.issued

    @property
    def skipped(self) -> int:
        """Complete windows that a newer frame overtook before their nowcast was made."""
        return self.state.tally.skipped

    @property
    def incomplete(self) -> int:
        """Newest slots that were overtaken while a frame of their window was missing."""
        return self.state.tally.incomplete

    @property
    def ready(self) -> bool:
        """Whether the newest slot's nowcast can be made and was not, or is to be made again."""
        return self._open and self._stand_ins.possible()

    @property
    def waiting(self) -> bool:
        """Whether the newest slot has no nowcast yet because a frame of its window is missing."""
        newest = self.window.newest
        return newest not in (None, self.state.done_slot) and not self._stand_ins.possible()

    @property
    def frames_to_next(self) -> int:
        """Frames that are to come, one after the other, before the next nowcast; 0: it is due."""
        if self.ready:
            return 0
        newest, waiting = self.window.newest, len(self.window.state.learning)
        back = 0
        while newest is not None and self.window.entry(newest - back) is not None:
            back += 1
        return max(1, self.window.context - max(back, waiting))

    @property
    def prewarmed(self) -> bool:
        """Whether only the newest frame's own work is left for the window that is complete now."""
        window = self.window.complete()
        return window is not None and self.past.steps_missing(window[:-1]) == 0

    @property
    def _open(self) -> bool:
        return self.window.newest != self.state.done_slot or self.state.replaced

    def put(self, frame: Frame, arrived: float | None = None) -> Put:
        """Check a frame and put it into the window.

        Args:
            frame: in physical units.
            arrived: time.monotonic() when it was seen whole; None where that does not matter.
        """
        if self._counts_arrivals:
            self.ledger.receive()
        reason = self._fault(frame)
        if reason:
            self.ledger.settle("bad")
            return Put("bad", reason)
        before, was_ready = self.window.newest, self.ready
        done, tally = self.state.done_slot, self.state.tally
        placed = self.window.put(frame, arrived)
        if self.window.newest != before:
            if before is not None and before != done:
                tally.skipped += was_ready
                tally.incomplete += not was_ready
            tally.incomplete += placed.skipped_slots
            self.state.replaced = False
        if placed.replaced is not None:
            self.past.reset()
            self.state.replaced = self.window.newest == done
        for entry in placed.left:
            self.past.leave(entry)
        return Put(placed.verdict, placed.reason, placed.notice)

    def issue(self) -> Nowcast | None:
        """Make the nowcast of the newest slot; None where `ready` is false.

        Raises:
            AccuracyError: the engine gave NaN or infinity; this slot gets no nowcast.
        """
        work = self.begin()
        if work is None:
            return None
        try:
            made = self.forecast(work)
        except AccuracyError:
            self.past.reset()
            raise
        return self.end(work, *made)

    def begin(self) -> Work | None:
        """Do all but the last part of `issue`: None where `ready` is false.

        Raises:
            AccuracyError: see `issue`.
        """
        if not self.ready:
            return None
        newest, prewarmed = self.window.newest, self.prewarmed
        again = newest == self.state.done_slot
        self.state.done_slot, self.state.replaced = newest, False
        self._stand_ins.fill()
        window = self.window.complete()
        assert window is not None, "the holes were filled"
        state = self.past.state_before(window)
        return Work(window, window[-1].model_frame(self._codec), state, prewarmed, again)

    def forecast(self, work: Work) -> Finished:
        """The part between `begin` and `end`, which takes the time.

        Raises:
            AccuracyError: see `issue`.
        """
        return self._finish(work.frame, work.state, self.horizon)

    def _finish(self, frame: Array, state: StateHandle, horizon: int) -> Finished:
        return finish(
            self.session, self.manifest, frame, state, horizon, chances=self.chances
        ).of_one()

    def pass_over(self) -> None:
        """Take the newest slot's nowcast as made: whoever read these frames before has made it."""
        if self.ready:
            self.state.done_slot, self.state.replaced = self.window.newest, False
            self._stand_ins.fill()

    def end(
        self,
        work: Work,
        frames: Array,
        after: StateHandle | None,
        chances: Array | None = None,
    ) -> Nowcast:
        """The nowcast of what `begin` gave.

        Args:
            work: from `begin`.
            frames: `(K, C, H, W)`, model units.
            after: the state after the newest frame, where it is known.
            chances: of events, `(K, Q, C, H, W)`, where they were asked for.
        """
        tally = self.state.tally
        tally.again += work.again
        tally.issued += not work.again
        tally.standing_in += any(entry.how for entry in work.window)
        self.past.finished(work.window[-1], after)
        physical = self._codec.physical_from_model(frames)
        if self.on_gap == "bridge":
            self.state.last = (work.window[-1].slot, physical)
        made = self._nowcast(work.window, physical)
        if chances is None:
            return made
        return replace(made, chances=Chances(thresholds_of(self.manifest), chances))

    def idle_step(self) -> bool:
        """Run one step of work that the next nowcast will need.

        Returns:
            False where nothing is left to do until a frame arrives.
        """
        return self.past.idle_step(self.window)

    def warm_up(self) -> None:
        """Run every graph once on an empty sequence, so that the first nowcast is not slow."""
        zeros = np.zeros((1, *self.manifest.frame), np.float32)  # (1, C, H, W)
        state = self.session.zero_state()
        if self.manifest.context > 1:
            state = advance(self.session, zeros, state)
        self._finish(zeros, state, self.horizon)

    def _bridge(self, slot: int, count: int) -> Array | None:
        """The `count` frames after `slot`: of the newest nowcast, or of one made for them."""
        if self.state.last is not None:
            issued, frames = self.state.last
            first = slot - issued
            if first >= 0 and first + count <= len(frames):
                return frames[first : first + count]
        window = self.window.entries(slot - self.manifest.context + 1, slot)
        if len(window) < self.manifest.context:
            return None
        state = self.session.zero_state()
        for entry in window[:-1]:
            state = advance(self.session, entry.model_frame(self._codec), state)
        horizon = max(count, self.horizon)
        if horizon == self.manifest.horizon != self.horizon:
            horizon += 1  # by the step graph, which is open
        newest = window[-1].model_frame(self._codec)
        frames, _, _ = self._finish(newest, state, horizon)
        return self._codec.physical_from_model(frames)[:count]

    def _fault(self, frame: Frame) -> str:
        if frame.data.shape != self.manifest.frame:
            return str(wrong_size(frame.data.shape, self.manifest.frame, frame.source_id))
        if frame.mask is not None and frame.mask.shape != frame.data.shape[1:]:
            return f"the mask of {frame.source_id} has the shape {frame.mask.shape}"
        if frame.mask is not None and not frame.mask.any():
            return f"{frame.source_id} has no data all over"
        try:
            self._codec.check(frame.data, frame.source_id, frame.mask)
        except FrameError as error:
            return str(error)
        return ""

    def _nowcast(self, window: tuple[Entry, ...], frames: Array) -> Nowcast:
        grid = self.window.grid
        newest = window[-1].frame
        how = tuple(entry.how for entry in window)
        arrived = [entry.arrived for entry in window if entry.arrived is not None]
        return Nowcast(
            frames=frames,
            context=np.stack([entry.frame.data for entry in window]),  # (T, C, H, W)
            units=self._codec.units,
            quantity=self._codec.quantity,
            low=self._codec.low,
            high=self._codec.high,
            issue_time=newest.valid_time,
            cadence_s=None if grid is None else grid.cadence_s,
            context_times=tuple(entry.frame.valid_time for entry in window),
            context_fill=how if any(how) else (),
            stream=self.stream,
            source_id=newest.source_id,
            grid=newest.grid,
            observed=newest.mask,
            context_observed=masks_of([entry.frame.mask for entry in window], newest.data.shape),
            standard_name=newest.standard_name,
            notes=newest.notes,
            made_by=self.made_by,
            latency_ms=1e3 * (time.monotonic() - max(arrived)) if arrived else None,
        )
