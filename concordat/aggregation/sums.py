"""One weighted sum of all updates, by block of columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows, Vector

FLOAT32 = np.finfo(np.float32)
_COLUMNS, _LEAST = 1 << 18, 1 << 14
"""Columns added at once: so many that threads seldom wait for Python's lock, and of one run, so as to copy nothing."""
_GROUP = 16
"""Rows added one by one; then such sums are. Rounding grows with n/16 + 16."""


def weighted_sum(rows: Rows, weights: NDArray[np.float64], *, progress: Progress | None = None) -> Vector:
    """Sum of weights (n,) times rows, (size,), to 1e-6 of the sum of absolute terms; rows of weight 0 are not read.

    In float32, as fast as memory gives them; in float64 where that overflows, or where a weight would underflow.
    Raises AggregationError if a value that is read is not finite.
    """
    out = np.zeros(rows.size, np.float32)
    used = np.flatnonzero(weights).tolist()
    if not used:
        return out
    read, weights, scratch = rows.select(used), weights[used], Scratch()
    # Equal weights are one factor of the sum, which saves a pass over every row.
    equal = bool((weights == weights[0]).all())
    with np.errstate(over="ignore"):  # An infinite factor shows in the sum, which is then made in float64.
        factors = weights.astype(np.float32)

    def plainly(begin: int, end: int) -> None:
        total = out[begin:end]
        with np.errstate(over="ignore", invalid="ignore"):
            _add(read, None if equal else factors, begin, end, total, scratch.array("sums", (2, end - begin)))
            if equal:
                np.multiply(total, factors[0], out=total)
        if not np.isfinite(total).all():
            exactly(begin, end)

    def exactly(begin: int, end: int) -> None:
        for first in range(begin, end, columns):
            last = min(first + columns, end)
            block = scratch.rows("block", read.n, last - first, np.float64)
            read.fill(first, last, block)
            out[first:last] = in_range(weights @ block, rows)

    columns = width(read.n, 8)
    if np.abs(weights).min() >= FLOAT32.tiny:
        blocks = run(plainly, rows, _COLUMNS, progress, _LEAST)
    else:
        blocks = run(exactly, rows, columns, progress)
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


def _add(
    rows: Rows,
    factors: NDArray[np.float32] | None,
    begin: int,
    end: int,
    out: Vector,
    scratch: NDArray[np.float32],
) -> None:
    """Write the sum of columns begin to end of all rows, times their factors, into `out`; `scratch` (2, columns)."""

    def term(row: int, space: Vector) -> Vector:
        values = rows.piece(row, begin, end, space)
        return values if factors is None else np.multiply(values, factors[row], out=space)

    for start in range(0, rows.n, _GROUP):
        group = scratch[0] if start else out
        total = term(start, group)
        for row in range(start + 1, min(start + _GROUP, rows.n)):
            total = np.add(total, term(row, scratch[1]), out=group)
        if start:
            np.add(out, total, out=out)
        elif total is not out:
            out[...] = total
