"""Ask a terminal whether it draws sixels: its primary device attributes (DA1) have a 4 then."""

from __future__ import annotations

import os
import re
import time

ANSWER_S = 0.5
"""How long an answer may take, over a slow line as well."""
_ASK = b"\x1b[c"
_ANSWER = re.compile(rb"\x1b\[\?([0-9;]{1,100})c")
_MOST = 1000


def draws_sixels() -> bool:
    """Whether the terminal says so; False where it cannot be asked without harm."""
    try:
        import termios

        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError):
        return False
    try:
        return b"4" in _attributes(terminal)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)


def _attributes(terminal: int) -> list[bytes]:
    import select
    import termios
    import tty

    # In the background, a change of the terminal would stop this process; what somebody has typed
    # ahead belongs to the shell.
    if os.tcgetpgrp(terminal) != os.getpgrp() or select.select([terminal], [], [], 0)[0]:
        return []
    before = termios.tcgetattr(terminal)
    try:
        # Unread input is kept, and the answer is neither echoed nor held until Enter.
        tty.setcbreak(terminal, termios.TCSADRAIN)
        if select.select([terminal], [], [], 0)[0]:  # half a line, which only now can be read
            return []
        os.write(terminal, _ASK)
        return _read(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _read(terminal: int) -> list[bytes]:
    import select

    answer, until = b"", time.monotonic() + ANSWER_S
    while (left := until - time.monotonic()) > 0 and len(answer) < _MOST:
        if not select.select([terminal], [], [], left)[0]:
            break
        answer += os.read(terminal, 1)  # no letter more than the answer has
        if found := _ANSWER.search(answer):
            return found[1].split(b";")
    return []
