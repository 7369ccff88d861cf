"""A terminal of the tests: a process runs in it, and what it draws is kept."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

DA1 = b"\x1b[c"
"""Asks a terminal for its primary device attributes."""
NAMES = ("KITTY_WINDOW_ID", "TERM_PROGRAM", "LC_TERMINAL", "WEZTERM_PANE", "TMUX", "STY")


class Terminal:
    """A terminal of some size, which answers what it is asked.

    `seen` is what was written to it, `modes` how it was set before and after.
    """

    def __init__(
        self, *, columns: int = 200, pixels: int = 2000, answer: bytes = b"", typed: bytes = b""
    ) -> None:
        self._answer, self._typed = answer, typed
        self._size = struct.pack("HHHH", 50, columns, pixels, 1000)
        self.seen = b""
        self.modes: list[Any] = []
        self.left = b""
        """What was typed ahead and nobody has read."""

    def run(self, *words: object, **environment: str) -> int:
        """Run `stpl-deploy` in it; gives the exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, self._size)
        self.modes = [termios.tcgetattr(theirs)]
        os.write(ours, self._typed)
        around = {name: value for name, value in os.environ.items() if name not in NAMES}
        # The first terminal that the leader of a session opens becomes its own.
        opens = 'exec "$@" <"$0" >"$0"'
        process = subprocess.Popen(
            ["sh", "-c", opens, os.ttyname(theirs), sys.executable, "-m", "stpl_deploy",
             *map(str, words)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**around, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        try:
            self._read(ours, process, theirs)
            code = process.wait(60)
            self.modes.append(termios.tcgetattr(theirs))
            if self._typed:
                self.left = os.read(theirs, 100)
            return code
        finally:
            process.kill()
            process.wait()
            for end in (ours, theirs):
                os.close(end)

    def _read(self, ours: int, process: subprocess.Popen[bytes], theirs: int) -> None:
        import select

        answered = False
        while True:
            ended = process.poll() is not None
            if select.select([ours], [], [], 0.05)[0]:
                self.seen += os.read(ours, 65536)
                if self._answer and DA1 in self.seen and not answered:
                    os.write(ours, self._answer)
                    answered = True
            elif ended:
                return
