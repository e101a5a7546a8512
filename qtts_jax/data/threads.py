"""A `map` over threads that keeps the order and holds few results in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Results computed ahead of the caller, for each thread.
_AHEAD = 4


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int | None) -> Iterator[R]:
    """`map` over threads, for functions that release Python's lock (decoding, NumPy).

    Args:
        workers: threads; None for one a core.

    Yields:
        the results in the order of `items`. An exception is raised in the place of its result, and
        calls that have not begun by then are cancelled.
    """
    workers = workers or os.cpu_count() or 1
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for left in pending:
                left.cancel()
