"""What the targets of the campaign share: the two ways to use an input, and the data at hand.

An attempt returns in a word what became of the input (`refused`, `used`), and raises what no user
may see.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from stpl_core.errors import StplError

Attempt = Callable[[int], str]
Prepare = Callable[[Path], Attempt]

DATA = Path(__file__).parents[1] / "data"
TINY, RUN = DATA / "convlstm-tiny.bundle", DATA / "modernn-mini"
SHARED = Path(__file__).parents[3] / "shared"
MOST_PIXELS = 2**22


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except StplError:
        return "refused"
    return "used"


def verb(words: list[str]) -> str:
    """Run a command line; its output must be plain, its errors a line, its code no traceback's."""
    from stpl_deploy.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    assert code in (0, 2, 3, 4), err.getvalue()[-2000:]
    assert "\x1b" not in out.getvalue() + err.getvalue(), ascii(err.getvalue()[-300:])
    return "refused" if code else "used"
