"""Watchers that take their time, in a thread of their own."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence

from stpl_core.frames import Frame
from stpl_runtime.nowcast import Nowcast
from stpl_runtime.nowcasting.window import Verdict
from stpl_runtime.watching.watcher import Watcher

_LIMIT = 256
"""Events that wait."""
_LIMIT_BYTES = 128 * 2**20
"""Their frames together."""

Event = tuple[int, Callable[[Watcher], None]]
"""Bytes that it holds, and how a watcher is notified of it."""


class Background:
    """Passes on what happens, in the order in which it does, without making the stream wait.

    Where the watchers cannot keep up, events are left out and counted, or the stream waits where
    that may be; memory stays bounded.
    """

    def __init__(self, watchers: Sequence[Watcher] = (), *, waits: bool = False) -> None:
        """Prepare; `start` begins. Until then, `watchers` may be changed.

        Args:
            watchers: notified of everything, in this order.
            waits: the stream waits for them, as in a replay; no event is left out then.
        """
        self.watchers: Sequence[Watcher] = watchers
        self._waits = waits
        self.missed = 0
        """Events that were left out, or that a watcher failed at."""
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._busy = False
        self._closing = self._failed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="watchers", daemon=True)

    def start(self) -> None:
        """Begin to pass on."""
        self._thread.start()

    def close(self, patience_s: float | None = None) -> None:
        """Pass on what waits, for so many seconds at most where given, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.ident is None:
            return
        self._thread.join(patience_s)
        with self._changed:
            self.missed += len(self._waiting)
            self._waiting.clear()
        self._thread.join()

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Wait until everything so far was passed on; False where that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def frame(self, frame: Frame, verdict: Verdict, stream: str) -> None:
        """See `Watcher`."""
        self._put(frame.data.nbytes, lambda watcher: watcher.frame(frame, verdict, stream))

    def nowcast(self, nowcast: Nowcast) -> None:
        """See `Watcher`."""
        size = nowcast.frames.nbytes + nowcast.context.nbytes
        self._put(size, lambda watcher: watcher.nowcast(nowcast))

    def problem(self, line: str) -> None:
        """See `Watcher`."""
        self._put(len(line), lambda watcher: watcher.problem(line))

    def _put(self, size: int, event: Callable[[Watcher], None]) -> None:
        with self._changed:
            while self._is_full(size):
                own = threading.current_thread() is self._thread  # which alone makes room
                if not self._waits or own or self._closing or not self._thread.is_alive():
                    self.missed += 1
                    return
                self._changed.wait(1.0)
            self._waiting.append((size, event))
            self._bytes += size
            self._changed.notify_all()

    def _is_full(self, size: int) -> bool:
        if not self._waiting:
            return False
        return len(self._waiting) >= _LIMIT or self._bytes + size > _LIMIT_BYTES

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                size, event = self._waiting.popleft()
                self._bytes -= size
                self._busy = True
                self._changed.notify_all()
            for watcher in self.watchers:
                self._pass_on(watcher, event)

    def _pass_on(self, watcher: Watcher, event: Callable[[Watcher], None]) -> None:
        """A fault of one who watches is a bug; it is printed once, and the stream goes on."""
        try:
            event(watcher)
        except Exception:
            self.missed += 1
            if not self._failed:
                self._failed = True
                traceback.print_exc()
