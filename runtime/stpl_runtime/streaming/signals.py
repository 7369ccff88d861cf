"""Ctrl-C, SIGTERM and SIGHUP end a stream cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from stpl_core.machine import stop_signals


class Stoppable(Protocol):
    """What runs until it is stopped."""

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        ...


@contextmanager
def stop_on_signals(running: Stoppable) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP stop it; a second one interrupts at once.

    Works in the main thread only, which alone gets signals; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        running.stop()
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
