"""Makes the next batches in the background, so that data never keeps a step waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

DEPTH = 2
"""Batches that are made ahead."""


Batch = TypeVar("Batch")


def prefetched(
    load: Callable[[int], Batch], first: int, last: int
) -> Generator[tuple[int, Batch], None, None]:
    """Yield `(n, load(n))` for n in first..last-1, in order, made ahead in one other thread.

    Args:
        load: pure; an error in it is raised where its batch is due.
        first: the first number.
        last: one past the last.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        asked = first
        try:
            for n in range(first, last):
                while asked < min(n + 1 + DEPTH, last):
                    waiting.append(pool.submit(load, asked))
                    asked += 1
                yield n, waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
