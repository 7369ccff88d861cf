"""A verb run once more in a process of its own, with limits: for a stranger's graphs.

A graph is judged before a runtime sees it, but a runtime has its own faults: one that ends the
process, or takes all memory, must take no other work along.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

import typer

from stpl_core.errors import BreachError, UsageError

_FLAG = "--isolated"
_CPU_SECONDS = 1800
_WALL_SECONDS = 3600.0
_LEAST_MEMORY = 4 * 2**30


def run_isolated(arguments: Sequence[str]) -> None:
    """Run this command line without `--isolated`; ends with its exit code.

    Raises:
        BreachError: a signal or a limit ended it.
        UsageError: it was not asked for on a command line.
    """
    if _FLAG not in arguments:
        raise UsageError(
            "not started from a command line", expected="stpl-deploy verify", fix="leave it out"
        )
    rest = [word for word in arguments if word != _FLAG]
    command = [sys.executable, "-I", "-m", "stpl_deploy", *rest]
    limits = None if sys.platform == "win32" else _limit
    try:
        done = subprocess.run(  # noqa: S603
            command, check=False, timeout=_WALL_SECONDS, preexec_fn=limits
        )
    except subprocess.TimeoutExpired as error:
        raise BreachError(
            f"it did not end in {_WALL_SECONDS:g} s", expected="a result", fix=_REFUSE
        ) from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise BreachError(
            f"it ended the process that ran it ({name})", expected="a result", fix=_REFUSE
        )
    if done.returncode:
        raise typer.Exit(done.returncode)


_REFUSE = "do not use this bundle: its graphs are not what an export writes"


def _limit() -> None:
    """In the new process: no core file, an end of computing time and of memory."""
    import resource

    from stpl_core.machine import memory_bytes

    memory = max(_LEAST_MEMORY, (memory_bytes() or 0) // 2)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_SECONDS),
        (resource.RLIMIT_AS, memory),
    ):
        _, hard = resource.getrlimit(what)
        if hard == resource.RLIM_INFINITY or most <= hard:
            resource.setrlimit(what, (most, hard))
