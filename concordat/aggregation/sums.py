"""One weighted sum of all updates, by block of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows, Vector

FLOAT32 = np.finfo(np.float32)
_COLUMNS = 1 << 16
_LEAST = 1 << 14
"""Columns added in pairs: many, so that Python is not what takes the time, and of one tensor, so as to copy nothing."""


def weighted_sum(
    rows: Rows, weights: NDArray[np.float64], *, threads: int | None = None, progress: Progress | None = None
) -> Vector:
    """Sum of weights (n,) times rows, (size,), to 1e-6 of the sum of absolute terms; rows of weight 0 are not read.

    Equal weights: rows are added in pairs, in float32, as fast as memory gives them. Others: in float64.
    Raises AggregationError if a value that is read is not finite.
    """
    out = np.zeros(rows.size, np.float32)
    used = np.flatnonzero(weights).tolist()
    if not used:
        return out
    read, weights, scratch = rows.select(used), weights[used], Scratch()
    equal = bool((weights == weights[0]).all()) and abs(weights[0]) >= FLOAT32.tiny

    def pairs(begin: int, end: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            sums = scratch.array("sums", (read.n.bit_length() + 1, _COLUMNS))
            total = _pairwise(read, range(read.n), begin, end, sums)
            np.multiply(total, np.float32(weights[0]), out=out[begin:end])
        if not np.isfinite(out[begin:end]).all():
            exactly(begin, end)

    def exactly(begin: int, end: int) -> None:
        for first in range(begin, end, columns):
            last = min(first + columns, end)
            block = scratch.rows("block", read.n, last - first, np.float64)
            read.fill(first, last, block)
            out[first:last] = in_range(weights @ block, rows)

    columns = width(read.n, 8)
    if equal:
        blocks = run(pairs, rows, _COLUMNS, threads, progress, _LEAST)
    else:
        blocks = run(exactly, rows, columns, threads, progress)
    for _ in blocks:
        pass
    return out


def in_range(values: NDArray[np.float64], rows: Rows) -> NDArray[np.float64]:
    """Values made of `rows` in float64, kept from rounding to an infinite float32.

    Raises AggregationError if they are not finite, because rows are not.
    """
    if not np.isfinite(values).all():
        rows.check_finite()
    return np.clip(values, FLOAT32.min, FLOAT32.max)


def _pairwise(rows: Rows, which: Sequence[int], begin: int, end: int, scratch: NDArray[np.float32]) -> Vector:
    """Sum of columns begin to end of rows, halves first, so that rounding grows with the logarithm of their number."""
    if len(which) == 1:
        return rows.piece(which[0], begin, end, scratch[0])
    half = len(which) // 2
    left = _pairwise(rows, which[:half], begin, end, scratch)
    right = _pairwise(rows, which[half:], begin, end, scratch[1:])
    return np.add(left, right, out=scratch[0, : end - begin])
