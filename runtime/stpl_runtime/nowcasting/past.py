"""The recurrent state before the newest frame: rebuilt for each window, or carried on.

Both know the frames that they have read by slot and serial, so a late frame or a correction is
seen as what it is: a window whose past must be run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from stpl_core.codec import FrameCodec
from stpl_runtime.engine import KeepsStates, Session, StateHandle
from stpl_runtime.nowcasting.predict import advance
from stpl_runtime.nowcasting.window import Entry, Window

Entries = tuple[Entry, ...]


@dataclass(frozen=True)
class PastState:
    """A carried state; arrays `(1, *shape)` by the names of the manifest."""

    slot: int
    """The slot that it has taken in last."""
    state: Mapping[str, NDArray[Any]]
    ahead_serial: int | None = None
    """Serial of the next slot's entry, where the state after that is known too."""
    ahead: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Past(Protocol):
    """Makes the state before a window's newest frame."""

    def steps_missing(self, prefix: Entries) -> int:
        """Steps that are left to run for a window whose older frames are `prefix`."""
        ...

    def state_before(self, window: Entries) -> StateHandle:
        """The state before the newest of T entries; the caller may use it up."""
        ...

    def finished(self, newest: Entry, after: StateHandle | None) -> None:
        """The nowcast was made; `after` is the state after `newest`, where it is known."""
        ...

    def leave(self, entry: Entry) -> None:
        """`entry` fell out of the window."""
        ...

    def idle_step(self, window: Window) -> bool:
        """Run one step ahead of time; False where there is none."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def kept(self) -> PastState | None:
        """What cannot be had again from the window, for a state file."""
        ...

    def restore(self, kept: PastState) -> None:
        """Go on from what `kept` gave."""
        ...


class WindowPast:
    """From the zero state through exactly the T - 1 older frames of the window."""

    def __init__(self, session: Session, codec: FrameCodec) -> None:
        """Start with nothing read."""
        self._session, self._codec = session, codec
        self._read: list[int] = []  # serials that `_state` has taken in, oldest first
        self._state: StateHandle | None = None

    def steps_missing(self, prefix: Entries) -> int:
        """See `Past`."""
        return len(prefix) - (len(self._read) if self._fits(prefix) else 0)

    def state_before(self, window: Entries) -> StateHandle:
        """See `Past`."""
        while self._step_towards(window[:-1]):
            pass
        state = self._state
        self.reset()  # the next window starts one frame later
        return self._session.zero_state() if state is None else state

    def finished(self, newest: Entry, after: StateHandle | None) -> None:
        """Nothing of it serves the next window."""

    def leave(self, entry: Entry) -> None:
        """Nothing to do: `_read` no longer fits then."""

    def idle_step(self, window: Window) -> bool:
        """Run a step of the next window's prefix; with a hole in it, of what may be filled yet."""
        newest, older = window.newest, window.context - 1
        if newest is None:
            return False
        prefix = window.entries(newest - older + 1, newest)
        if len(prefix) < older:
            prefix = window.entries(newest - older, newest - 1)
        return self._step_towards(prefix)

    def reset(self) -> None:
        """See `Past`."""
        self._read, self._state = [], None

    def kept(self) -> PastState | None:
        """Nothing: the window gives it again, bit for bit."""
        return None

    def restore(self, kept: PastState) -> None:
        """Nothing is kept."""

    def _fits(self, prefix: Entries) -> bool:
        serials = [entry.serial for entry in prefix[: len(self._read)]]
        return serials == self._read

    def _step_towards(self, prefix: Entries) -> bool:
        if not self._fits(prefix):
            self.reset()
        if len(self._read) == len(prefix):
            return False
        entry = prefix[len(self._read)]
        state = self._session.zero_state() if self._state is None else self._state
        self._state = None  # used up, also if the step fails
        self._state = advance(self._session, entry.model_frame(self._codec), state)
        self._read.append(entry.serial)
        return True


class CarriedPast:
    """One state that goes on from frame to frame; it starts anew with the first one after a gap.

    So it has read the whole run of frames without a hole, whichever nowcasts were skipped.

    A correction of a frame that the state has already taken in changes the window, not the state;
    the newest frame can still be corrected, since it is taken in when the next one is there.

    A frame that stood in for a missing one is forgotten with the window: when it leaves, the state
    starts anew with what comes after it, so no nowcast depends on it that does not say so.

    Frames that no nowcast came to are read in idle time, or before the next nowcast. Where they
    come faster than they can be read, the state lets go of the past and starts anew.
    """

    def __init__(self, session: Session, codec: FrameCodec, *, fork: bool, most: int) -> None:
        """Start with nothing read.

        Args:
            session: with the step graph open.
            codec: the bundle's.
            fork: hand out copies of the state, for a caller that uses them up.
            most: frames beyond the window that may wait to be read.
        """
        self._session, self._codec, self._forks = session, codec, fork
        self._left: deque[Entry] = deque()  # out of the window, and not read yet
        self._most = most
        self._state: StateHandle | None = None
        self._slot = 0  # the slot that `_state` has taken in last
        self._ahead: tuple[int, StateHandle] | None = None  # serial of the next slot, state after

    def steps_missing(self, prefix: Entries) -> int:
        """See `Past`."""
        if self._left or not self._continues(prefix):
            return len(self._left) + len(prefix)
        waiting = [entry for entry in prefix if entry.slot > self._slot]
        known = bool(waiting) and self._ahead is not None and self._ahead[0] == waiting[0].serial
        return len(waiting) - known

    def state_before(self, window: Entries) -> StateHandle:
        """See `Past`."""
        self._catch_up()
        if not self._continues(window):
            self._start(window[0])
        for entry in window[:-1]:
            if entry.slot > self._slot:
                self._take_in(entry)
        assert self._state is not None
        return self._fork() if self._forks else self._state

    def finished(self, newest: Entry, after: StateHandle | None) -> None:
        """See `Past`."""
        if after is not None:
            self._ahead = (newest.serial, after)

    def leave(self, entry: Entry) -> None:
        """Take in a frame that no nowcast came to: nowcasts are skipped, frames are not."""
        if entry.how:
            self.reset()
            return
        if self._left or self._state is None or entry.slot > self._slot:
            self._left.append(entry)
        if len(self._left) > self._most:
            self.reset()

    def idle_step(self, window: Window) -> bool:
        """Take the newest frame in beside the state, where its nowcast did not do that.

        Before that, those that left the window; after a new start, one of the frames before it.
        """
        if self._left:
            self._read(self._left.popleft())
            return True
        entries = window.complete()
        if entries is None:
            return False
        newest = entries[-1]
        if not self._continues(entries):
            self._start(entries[0])
        if self._slot < newest.slot - 1:
            self._take_in(entries[self._slot + 1 - entries[0].slot])
            return True
        if self._slot != newest.slot - 1:
            return False
        if self._ahead is not None and self._ahead[0] == newest.serial:
            return False
        after = advance(self._session, newest.model_frame(self._codec), self._fork())
        self._ahead = (newest.serial, after)
        return True

    def kept(self) -> PastState | None:
        """See `Past`."""
        self._catch_up()
        if self._state is None:
            return None
        arrays = self._session.state_arrays(self._state)
        if self._ahead is None:
            return PastState(self._slot, arrays)
        serial, ahead = self._ahead
        return PastState(self._slot, arrays, serial, self._session.state_arrays(ahead))

    def restore(self, kept: PastState) -> None:
        """See `Past`."""
        self._left.clear()
        self._slot, self._state = kept.slot, self._session.state_from_arrays(kept.state)
        self._ahead = None
        if kept.ahead_serial is not None:
            self._ahead = (kept.ahead_serial, self._session.state_from_arrays(kept.ahead))

    def reset(self) -> None:
        """See `Past`."""
        self._left.clear()
        self._state, self._ahead = None, None

    def _catch_up(self) -> None:
        while self._left:
            self._read(self._left.popleft())

    def _read(self, entry: Entry) -> None:
        """Read a frame that left the window."""
        if self._state is None or entry.slot > self._slot + 1:
            self._start(entry)
        if entry.slot > self._slot:
            self._take_in(entry)

    def _start(self, first: Entry) -> None:
        self._state, self._ahead = self._session.zero_state(), None
        self._slot = first.slot - 1

    def _continues(self, entries: Entries) -> bool:
        if self._state is None:
            return False
        return not entries or self._slot >= entries[0].slot - 1

    def _take_in(self, entry: Entry) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == entry.serial:
            self._state = ahead[1]
        else:
            assert self._state is not None
            self._state = advance(self._session, entry.model_frame(self._codec), self._state)
        self._slot = entry.slot

    def _fork(self) -> StateHandle:
        assert self._state is not None
        if isinstance(self._session, KeepsStates):
            return self._session.fork(self._state)
        return self._session.state_from_arrays(self._session.state_arrays(self._state))
