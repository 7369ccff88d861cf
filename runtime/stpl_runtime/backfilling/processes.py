"""Worker processes that make blocks: any of them may be killed, and its block is made again.

A pool of Python's breaks as a whole when one of its processes dies. Here each process has a thread
that hands it one block at a time over pipes of its own: nothing is shared that a dead process could
leave locked.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stpl_core.errors import EnvironmentFault
from stpl_core.options import BackfillOptions
from stpl_runtime.backfilling.block import BlockReport
from stpl_runtime.backfilling.wire import options_text, report_of

_MOST_DEATHS = 3
"""Of processes over one block, or before one was ready."""
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "BLOSC_NTHREADS",
)
"""Where libraries look for how many threads they may start."""


class _DiedError(Exception):
    """A process ended without an answer."""


@dataclass(frozen=True)
class _Death:
    block: int | None
    how: str


_Message = BlockReport | _Death | BaseException | None


def made_by_processes(
    blocks: Sequence[int],
    options: BackfillOptions,
    workers: int,
    threads: int,
    say: Callable[[str], None],
    on_start: Callable[[int], None] = lambda pid: None,
) -> Iterator[BlockReport]:
    """Make blocks in worker processes.

    Args:
        blocks: which ones.
        options: the store exists, and the engine is its own.
        workers: processes.
        threads: of each.
        say: given a line where a process died.
        on_start: given the number of each process that is started.

    Yields:
        A report of each block, in the order in which they are done.

    Raises:
        StplError: what a worker could not do.
        EnvironmentFault: processes keep dying.
    """
    pool = _Pool(blocks, options_text(options), threads, on_start)
    pool.start(min(workers, len(blocks)))
    deaths: Counter[int | None] = Counter()
    left = len(blocks)
    try:
        while left:
            message = pool.messages.get()
            if isinstance(message, BlockReport):
                left -= 1
                yield message
            elif isinstance(message, _Death):
                deaths[message.block] += 1
                if deaths[message.block] >= _MOST_DEATHS:
                    raise _keeps_dying(message)
                say(f"a worker ended ({message.how}): another one takes its place")
            elif message is not None:
                raise message
    finally:
        pool.end(kill=left > 0)


def _keeps_dying(last: _Death) -> EnvironmentFault:
    where = "before they were ready" if last.block is None else f"over block {last.block}"
    return EnvironmentFault(
        f"{_MOST_DEATHS} workers ended {where} ({last.how})",
        expected="workers that live: SIGKILL mostly means that memory ran out",
        fix="fewer --workers, then the same command: what is made stays",
    )


class _Pool:
    """Processes, and a thread beside each."""

    def __init__(
        self, blocks: Sequence[int], options: str, threads: int, on_start: Callable[[int], None]
    ) -> None:
        self.messages: queue.Queue[_Message] = queue.Queue()
        self._blocks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        for block in blocks:
            self._blocks.put(block)
        self._options, self._on_start = options, on_start
        self._environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        self._running: set[subprocess.Popen[str]] = set()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def start(self, workers: int) -> None:
        """Start so many."""
        for _ in range(workers):
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self, *, kill: bool) -> None:
        """Let them go when they have done what they do now, or kill them."""
        self._ended.set()
        for _ in self._threads:
            self._blocks.put(None)
        with self._lock:
            for process in self._running if kill else ():
                process.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Keep one process alive, and hand it blocks."""
        try:
            while not self._ended.is_set() and self._one_process():
                pass
        except BaseException as error:
            self.messages.put(error)

    def _one_process(self) -> bool:
        """From its start to its end; whether another one is needed."""
        block: int | None = None
        process = self._started()
        try:
            _ask(process, self._options)
            while (block := self._blocks.get()) is not None:
                self.messages.put(report_of(_ask(process, str(block))))
            return False
        except _DiedError:
            if block is not None:
                self._blocks.put(block)
            if not self._ended.is_set():
                self.messages.put(_Death(block, _how(process.wait())))
            return True
        finally:
            with self._lock:
                self._running.discard(process)
            with suppress(OSError):  # a dead one's pipe
                process.communicate()
            process.wait()

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", "stpl_runtime.backfilling.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        with self._lock:
            self._running.add(process)
            if self._ended.is_set():
                process.kill()
        self._on_start(process.pid)
        return process


def _ask(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    """Write a line to a process, and wait for its answer.

    Raises:
        _DiedError: it ended.
    """
    assert process.stdin is not None, "a pipe"
    assert process.stdout is not None, "a pipe"
    try:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except OSError as error:
        raise _DiedError from error
    if not answer.endswith("\n"):
        raise _DiedError
    found: dict[str, Any] = json.loads(answer)
    if "ready" not in found and "report" not in found:
        report_of(found)  # raises it
    return found


def _how(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
