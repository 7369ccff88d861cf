"""Blocks made by the workers of a Dask cluster: `--dask tcp://HOST:8786`.

Dask moves blocks away from a worker that died. Each worker process opens one session, which its
tasks share one after the other, with as many threads as Dask gave the worker.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from stpl_core.errors import EnvironmentFault, StplError, UsageError
from stpl_core.options import BackfillOptions
from stpl_core.readers.libraries import reads_with
from stpl_runtime.backfilling.block import BlockMaker, BlockReport, open_maker
from stpl_runtime.backfilling.wire import answer_of, options_of, options_text, report_of
from stpl_runtime.engine import TRITON

_CONNECT_S = 10
_AHEAD = 2
"""Blocks in the hands of each of the cluster's threads: one more than it works on."""


def made_by_dask(
    blocks: Sequence[int], options: BackfillOptions, address: str
) -> Iterator[BlockReport]:
    """Make blocks on a cluster, which sees the bundle, the archive and the store at the same paths.

    Args:
        blocks: which ones.
        options: the store exists, and the engine is its own.
        address: of the scheduler.

    Yields:
        A report of each block, in the order in which they are done.

    Raises:
        UsageError: no scheduler answers.
        MissingExtraError: distributed is not installed.
        StplError: what a worker could not do.
        EnvironmentFault: a block ended several workers.
    """
    with reads_with("dask"):
        from distributed import Client, KilledWorker, as_completed
    try:
        client: Any = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address}",
            expected="the address that dask scheduler prints, such as tcp://HOST:8786",
            fix="start dask scheduler and dask worker, or --workers N on this machine alone",
        ) from error
    text, waiting = options_text(options), iter(blocks)
    with client:
        room = max(1, _AHEAD * sum(client.nthreads().values()))

        def more(count: int) -> list[Any]:
            taken = itertools.islice(waiting, count)
            return [client.submit(make_one, text, block, pure=False) for block in taken]

        running: Any = as_completed(more(room), loop=client.loop)
        for future in running:
            try:
                answer = future.result()
            except KilledWorker as error:
                raise EnvironmentFault(
                    f"a block ended several workers of {address}",
                    expected="workers that live: mostly their memory ran out",
                    fix="workers with more memory, then the same command: what is made stays",
                ) from error
            future.release()
            running.update(more(1))
            yield report_of(answer)


_lock = threading.Lock()
_opened: dict[str, BlockMaker] = {}
_stack = ExitStack()


def make_one(options: str, block: int) -> dict[str, Any]:
    """A task: one block, on the session of this process.

    Args:
        options: as `options_text` gives them.
        block: which one.

    Returns:
        What `wire.report_of` takes.
    """
    with _lock:  # a session is for one thread
        try:
            return answer_of(_maker(options).make(block))
        except StplError as error:
            return answer_of(error)


def _maker(text: str) -> BlockMaker:
    """The one of this process; that of another backfill is closed."""
    from distributed import get_worker

    if text not in _opened:
        _opened.clear()
        _stack.close()
        options = options_of(text)
        if options.backend.threads is None and not options.backend.engine.startswith(TRITON):
            threads = int(get_worker().state.nthreads)
            options = replace(options, backend=replace(options.backend, threads=threads))
        _opened[text] = _stack.enter_context(open_maker(options))
    return _opened[text]
