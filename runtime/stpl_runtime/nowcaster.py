"""Turns frames into nowcasts, with the work done ahead of time where it can be.

`window` (exact): a nowcast is what the offline rollout of the newest T frames gives. T - 1 of its
steps read frames that are known before the newest one arrives; `idle_step` runs them one by one.
`carry`: the state goes on from frame to frame and is reset after a gap only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stpl_deploy.bundle import Bundle
from stpl_deploy.codec import Array
from stpl_deploy.errors import AccuracyError, FrameError
from stpl_deploy.frames import Frame
from stpl_runtime.engine import Session
from stpl_runtime.ledger import Ledger
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.past import CarriedPast, Past, WindowPast, model_frame
from stpl_runtime.predict import advance, finish, graphs_needed, made_by
from stpl_runtime.window import Entry, Verdict, Window

ContextMode = Literal["window", "carry"]


@dataclass(frozen=True)
class Put:
    """What became of one frame."""

    verdict: Verdict
    reason: str = ""
    """Why it is bad; empty for all others."""


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
        ledger: Ledger | None = None,
    ) -> None:
        """Start with an empty window.

        Args:
            bundle: the opened bundle.
            session: with the graphs of `graphs_needed(bundle.manifest, horizon)` open.
            horizon: frames to predict; None takes the bundle's K.
            mode: `window` or `carry`.
            cadence_s: seconds between frames; None takes the bundle's, or learns it.
            lateness: see `Window`.
            ledger: where frames are counted as received; None makes one that `put` counts in.
        """
        self.manifest = manifest = bundle.manifest
        self.horizon = manifest.horizon if horizon is None else horizon
        graphs_needed(manifest, self.horizon)
        self._counts_arrivals = ledger is None
        self.ledger = ledger or Ledger()
        self.window = Window(
            manifest.context,
            self.ledger,
            cadence_s=cadence_s or manifest.cadence_s,
            lateness=lateness,
        )
        self.issued = 0
        """Nowcasts that were made."""
        self.skipped = 0
        """Complete windows that a newer frame overtook before their nowcast was made."""
        self.incomplete = 0
        """Newest slots that were overtaken while a frame of their window was missing."""
        self._codec = manifest.codec
        self._past: Past = (
            WindowPast(session, self._codec)
            if mode == "window"
            else CarriedPast(session, self._codec, fork=self.horizon != manifest.horizon)
        )
        self._session = session
        self._done_slot: int | None = None
        self._made_by = made_by(bundle, session, mode)

    @property
    def ready(self) -> bool:
        """Whether the newest slot's window is complete and its nowcast was not yet made."""
        return self.window.newest != self._done_slot and self.window.complete() is not None

    @property
    def waiting(self) -> bool:
        """Whether the newest slot has no nowcast yet because a frame of its window is missing."""
        newest = self.window.newest
        return newest not in (None, self._done_slot) and self.window.complete() is None

    @property
    def prewarmed(self) -> bool:
        """Whether only the newest frame's own work is left for the window that is complete now."""
        window = self.window.complete()
        return window is not None and self._past.steps_missing(window[:-1]) == 0

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
        before, was_ready = self.window.newest or 0, self.ready
        placed = self.window.put(frame, arrived)
        newest = self.window.newest
        if newest is not None and newest > before:
            self.skipped += was_ready
            open_slot = before != self._done_slot and not was_ready
            self.incomplete += newest - before - 1 + open_slot
        for entry in placed.left:
            self._past.leave(entry)
        return Put(placed.verdict)

    def issue(self) -> Nowcast | None:
        """Make the nowcast of the newest slot; None where `ready` is false.

        Raises:
            AccuracyError: the engine gave NaN or infinity; this slot gets no nowcast.
        """
        window = self.window.complete()
        if window is None or not self.ready:
            return None
        self._done_slot = self.window.newest
        state = self._past.state_before(window)
        frame = model_frame(window[-1], self._codec)
        try:
            frames, after = finish(self._session, self.manifest, frame, state, self.horizon)
        except AccuracyError:
            self._past.reset()
            raise
        self._past.finished(window[-1], after)
        self.issued += 1
        return self._nowcast(window, self._codec.physical_from_model(frames[0]))

    def idle_step(self) -> bool:
        """Run one step of work that the next nowcast will need.

        Returns:
            False where nothing is left to do until a frame arrives.
        """
        return self._past.idle_step(self.window)

    def warm_up(self) -> None:
        """Run every graph once on an empty sequence, so that the first nowcast is not slow."""
        zeros = np.zeros((1, *self.manifest.frame), np.float32)  # (1, C, H, W)
        state = self._session.zero_state()
        if self.manifest.context > 1:
            state = advance(self._session, zeros, state)
        finish(self._session, self.manifest, zeros, state, self.horizon)

    def _fault(self, frame: Frame) -> str:
        if frame.data.shape != self.manifest.frame:
            wanted = self.manifest.frame
            return f"{frame.source_id} has the shape {frame.data.shape}; expected {wanted}"
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
            source_id=newest.source_id,
            grid=newest.grid,
            observed=newest.mask,
            standard_name=newest.standard_name,
            notes=newest.notes,
            made_by=self._made_by,
            latency_ms=1e3 * (time.monotonic() - max(arrived)) if arrived else None,
        )
