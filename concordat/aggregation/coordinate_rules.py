"""Rules that look at each coordinate by itself: the mean of a window of its sorted values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows, Vector
from concordat.aggregation.sums import in_range

Block = NDArray[Any]
Window = Callable[[Block], Block]
"""(columns, m), each row sorted and finite -> (columns,); may overwrite what it is given."""


def trimmed(cut: int) -> Window:
    """Without the `cut` largest and the `cut` smallest, the mean of the rest (trimmed mean; Yin et al., ICML 2018)."""

    def window(block: Block) -> Block:
        m = block.shape[1]
        mean = _mean(block[:, cut : m - cut], m - 2 * cut)
        # Rounding must not lead it beyond the values it is made of: f hostile updates stay within those of the others.
        return np.clip(mean, block[:, cut], block[:, m - cut - 1])

    return window


def median(block: Block) -> Block:
    """Return the middle value, or the mean of the two in the middle (Yin et al., ICML 2018)."""
    return trimmed((block.shape[1] - 1) // 2)(block)


def nearest_to_median(keep: int) -> Window:
    """Mean of the `keep` values nearest to the median; of two that are equally near, the smaller one.

    MeaMed with keep = n - f (Xie et al., 2018); second phase of Bulyan (El Mhamdi et al., ICML 2018).
    """

    def window(block: Block) -> Block:
        m = block.shape[1]
        middle = median(block)[:, None]
        # The window moves up for as long as the value it loses is farther away than the one it gains.
        moves = middle - block[:, : m - keep] > block[:, keep:] - middle
        kept = np.ones(block.shape, np.bool_)
        kept[:, : m - keep] &= ~moves
        kept[:, keep:] &= moves
        block *= kept
        return _mean(block, keep)

    return window


def by_coordinate(
    rows: Rows,
    window: Window,
    mix: NDArray[np.float64] | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Vector:
    """Return the window's result for every column, (size,), of the rows, or of what `mix` makes of them.

    `mix` (m, n): a matrix to multiply the rows with; (n,): a factor for each row. Raises AggregationError if a value
    is not finite.
    """
    out, scratch = np.empty(rows.size, np.float32), Scratch()

    def found(begin: int, end: int, dtype: Any) -> Block:
        with np.errstate(over="ignore", invalid="ignore"):
            block = _transposed(rows, mix, begin, end, dtype, scratch)
            block.sort(axis=1)
            # What is not a number is sorted to the end, what is infinite to one of both; a window might miss it.
            ends = block[:, 0] - block[:, -1]
            return window(block) if np.isfinite(ends).all() else np.full(end - begin, np.nan, dtype)

    def task(begin: int, end: int) -> None:
        # Adding 0 makes 0 of −0, which an earlier update may have and a later one not.
        np.add(found(begin, end, np.float32), 0, out=out[begin:end])
        if not np.isfinite(out[begin:end]).all():
            for first, last in ((begin, (begin + end) // 2), ((begin + end) // 2, end)):
                out[first:last] = in_range(found(first, last, np.float64), rows)

    most = max(rows.n, 0 if mix is None else len(mix))
    for _ in run(task, rows, width(most), threads, progress):
        pass
    return out


def _transposed(
    rows: Rows, mix: NDArray[np.float64] | None, begin: int, end: int, dtype: Any, scratch: Scratch
) -> Block:
    """(columns, m): the values of a column side by side, which numpy sorts with vector instructions."""
    name, columns = np.dtype(dtype).name, end - begin
    source = scratch.rows(f"rows {name}", rows.n, columns, dtype)
    rows.fill(begin, end, source)
    block = scratch.array(f"transposed {name}", (columns, rows.n if mix is None else len(mix)), dtype)
    if mix is None:
        block[...] = source.T
    elif mix.ndim == 1:
        np.multiply(source.T, mix.astype(dtype), out=block)
    else:
        np.matmul(source.T, mix.T.astype(dtype), out=block)
    return block


def _mean(values: Block, count: int) -> Block:
    """Sum of the last axis over `count`, as one product: many times faster than a sum along short rows."""
    mean: Block = values @ np.full(values.shape[1], 1 / count, values.dtype)
    return mean
