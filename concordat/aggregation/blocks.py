"""Work on blocks of columns in a pool of threads; numpy computes without the interpreter's lock.

The blocks depend on the shape of the updates alone and results are taken in order, so the number of threads changes
no bit of what is computed.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from concordat.aggregation.rows import Rows

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (columns done, columns in all); a pass over the updates counts every column once."""

ELEMENTS = 1 << 19
"""Values in one block of all rows: 2 MiB of float32, few enough for the caches, enough to keep Python out of it."""
MAX_THREADS = 6
"""A thread needs up to four blocks of scratch: six stay below 128 MiB. More would wait for Python's lock."""
_MOST_COLUMNS = 1 << 16


class Scratch(threading.local):
    """Arrays that each thread uses again for every block: fresh memory would cost a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
        """Return an array of this shape, with what was left in it; the same memory for the same name."""
        size = int(np.prod(shape))
        held = self._arrays.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._arrays[name] = np.empty(size, dtype)
        return held[:size].reshape(shape)

    def rows(self, name: str, n: int, columns: int, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the same with n rows, an odd number of cache lines apart: at powers of two they all meet in one place
        of it.

        Transposing takes eight times as long then.
        """
        lines = -(-columns * np.dtype(dtype).itemsize // 64) | 1
        return self.array(name, (n, lines * 64 // np.dtype(dtype).itemsize), dtype)[:, :columns]


def width(rows: int, itemsize: int = 4) -> int:
    """Columns in a block of so many rows of values of `itemsize` bytes."""
    return max(1, min(4 * ELEMENTS // itemsize // rows, _MOST_COLUMNS))


def run(
    task: Callable[[int, int], T], rows: Rows, columns: int, progress: Progress | None, least: int | None = None
) -> Iterator[T]:
    """task(begin, end) for blocks of at most so many columns, in threads; results in the order of the blocks.

    OMP_NUM_THREADS threads, or else as many as there are processors for this process. `least`: see Rows.spans.
    """
    spans = rows.spans(columns, least)
    workers = min(_processors(), MAX_THREADS, len(spans))
    with one_blas_thread():
        for (_, end), result in zip(spans, _results(task, spans, workers), strict=True):
            if progress is not None:
                progress(end, rows.size)
            yield result


def one_blas_thread() -> AbstractContextManager[Any]:
    """BLAS in the calling thread only: the blocks are what is shared out."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit


def step(progress: Progress | None, index: int, steps: int) -> Progress | None:
    """Return the progress of one of several passes over the same columns, as part of the whole."""
    if progress is None:
        return None
    return lambda done, size: progress(index * size + done, steps * size)


def _results(task: Callable[[int, int], T], spans: Sequence[tuple[int, int]], workers: int) -> Iterator[T]:
    if workers == 1:
        yield from (task(*span) for span in spans)
        return
    with ThreadPoolExecutor(workers, "aggregation") as pool:
        pending: deque[Future[T]] = deque()
        for span in spans:
            pending.append(pool.submit(task, *span))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _processors() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))
