"""The trimmed mean, which looks at each coordinate by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows, Vector
from concordat.aggregation.sums import in_range

Block = NDArray[Any]


def trimmed_mean(
    rows: Rows, cut: int, mix: NDArray[np.float64] | None = None, *, progress: Progress | None = None
) -> Vector:
    """Return (size,), of every column the mean without its `cut` largest and smallest values (Yin et al., ICML 2018).

    `mix`: what the rows are before, (n, n) a matrix to multiply them with, (n,) a factor for each. Raises
    AggregationError if a value is not finite.
    """
    out, scratch = np.empty(rows.size, np.float32), Scratch()

    def means(begin: int, end: int, dtype: Any) -> Block:
        with np.errstate(over="ignore", invalid="ignore"):
            block = _transposed(rows, mix, begin, end, dtype, scratch)
            block.sort(axis=1)
            # What is not a number is sorted to the end, what is infinite to one of both; the cut might miss it.
            ends = block[:, 0] - block[:, -1]
            return _trimmed(block, cut) if np.isfinite(ends).all() else np.full(end - begin, np.nan, dtype)

    def task(begin: int, end: int) -> None:
        # Adding 0 makes 0 of −0, which an earlier update may have and a later one not.
        np.add(means(begin, end, np.float32), 0, out=out[begin:end])
        if not np.isfinite(out[begin:end]).all():
            for first, last in ((begin, (begin + end) // 2), ((begin + end) // 2, end)):
                out[first:last] = in_range(means(first, last, np.float64), rows)

    for _ in run(task, rows, width(rows.n), progress):
        pass
    return out


def _transposed(
    rows: Rows, mix: NDArray[np.float64] | None, begin: int, end: int, dtype: Any, scratch: Scratch
) -> Block:
    """(columns, n): the values of a column side by side, which numpy sorts with vector instructions."""
    name, columns = np.dtype(dtype).name, end - begin
    source = scratch.rows(f"rows {name}", rows.n, columns, dtype)
    rows.fill(begin, end, source)
    block = scratch.array(f"transposed {name}", (columns, rows.n), dtype)
    if mix is None:
        block[...] = source.T
    elif mix.ndim == 1:
        np.multiply(source.T, mix.astype(dtype), out=block)
    else:
        np.matmul(source.T, mix.T.astype(dtype), out=block)
    return block


def _trimmed(block: Block, cut: int) -> Block:
    """(columns,), of sorted values (columns, n)."""
    kept = block[:, cut : block.shape[1] - cut]
    # One product: many times faster than a sum along short rows.
    mean = kept @ np.full(kept.shape[1], 1 / kept.shape[1], kept.dtype)
    # Rounding must not lead it beyond the values it is made of: f hostile updates stay within those of the others.
    return np.asarray(np.clip(mean, kept[:, 0], kept[:, -1]))
