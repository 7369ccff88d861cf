"""What systemd is notified of, where it started this process with Type=notify: see sd_notify(3).

`NOTIFY_SOCKET` names a Unix datagram socket, `WATCHDOG_USEC` how long the manager waits for a sign
of life before it ends and restarts the service. Without the first, nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

_EVERY_S = 5.0
"""A status is sent no more often than this, unless the watchdog waits for less."""


class ServiceManager:
    """Sends READY, STATUS, WATCHDOG and STOPPING; a manager that is gone ends no stream."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Look for the socket."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environment.get("WATCHDOG_USEC", "") if watched else ""
        self._watchdog = limit.isdigit() and int(limit) > 0
        self._every_s = min(_EVERY_S, int(limit) / 4e6) if self._watchdog else _EVERY_S
        self._last_s = float("-inf")

    def ready(self) -> None:
        """The bundle is loaded and the sources are being read."""
        self._send("READY=1", "STATUS=waiting for frames")

    def alive(self, status: Callable[[], str]) -> None:
        """The loop turns; to be called at each turn.

        Args:
            status: one line on how it goes; called only where it is sent.
        """
        now = time.monotonic()
        if not self._address or now - self._last_s < self._every_s:
            return
        self._last_s = now
        self._send(*(["WATCHDOG=1"] if self._watchdog else []), f"STATUS={status()}")

    def stopping(self) -> None:
        """What is queued for the sinks is written now."""
        self._send("STOPPING=1", "STATUS=ending")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        text = "\n".join(" ".join(line.splitlines()) for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(1.0)
                sender.sendto(text.encode(), self._address)
        except OSError:
            pass  # the watchdog will see to it
