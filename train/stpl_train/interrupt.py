"""Ctrl-C as a wish: the iteration is finished first, or left off where it takes long.

A second one ends at once.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from stpl_core.machine import stop_signals

PATIENCE_S = 2.0
"""How long an iteration may go on after the wish before it is left off."""


class StoppedError(Exception):
    """Work that was left off at somebody's wish, to be done when training goes on."""


class StopRequest:
    """Context manager that notes SIGINT, SIGTERM and SIGHUP in place of dying of them."""

    def __init__(self) -> None:
        """Note nothing yet; only the main thread can listen, elsewhere this does nothing."""
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._since = 0.0

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def check_patience(self) -> None:
        """To be called between the steps of an iteration that can still be left off.

        Raises:
            StoppedError: the wish is older than `PATIENCE_S`.
        """
        if self.signal is not None and time.monotonic() - self._since >= PATIENCE_S:
            raise StoppedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal, self._since = number, time.monotonic()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
