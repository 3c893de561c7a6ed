"""The trimmed mean, which looks at each coordinate by itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows, Vector
from concordat.aggregation.sums import in_range

Block = NDArray[Any]
_FEW = 32
"""Up to so many updates are sorted by a network, whose passes grow faster than the work of a sort."""


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
            ends, mean = (_few if rows.n <= _FEW else _many)(
                _mixed(rows, mix, begin, end, dtype, scratch), cut, scratch
            )
            # What is not a number is at both ends, what is infinite at one of them; the cut might miss it.
            return mean if np.isfinite(ends).all() else np.full(end - begin, np.nan, dtype)

    def task(begin: int, end: int) -> None:
        # Adding 0 makes 0 of −0, which an earlier update may have and a later one not.
        np.add(means(begin, end, np.float32), 0, out=out[begin:end])
        if not np.isfinite(out[begin:end]).all():
            for first, last in ((begin, (begin + end) // 2), ((begin + end) // 2, end)):
                out[first:last] = in_range(means(first, last, np.float64), rows)

    for _ in run(task, rows, width(rows.n), progress):
        pass
    return out


def sort_rows(rows: list[Block], spare: Block, cut: int) -> list[Block]:
    """Return the rows such that each column is sorted, apart from the order of its `cut` least and greatest values, of
    which the very least and greatest are in place. All are overwritten, `spare` too.

    A sorting network over whole rows, which numpy compares with vector instructions: two to three times faster than
    sorting column by column, as long as they are few.
    """
    for i, j, low, high in _exchanges(len(rows), cut):
        one, other = rows[i], rows[j]
        if low and high:
            np.minimum(one, other, out=spare)
            np.maximum(one, other, out=other)
            rows[i], spare = spare, one
        elif low:
            np.minimum(one, other, out=one)
        else:
            np.maximum(one, other, out=other)
    return rows


@cache
def _exchanges(n: int, cut: int) -> tuple[tuple[int, int, bool, bool], ...]:
    """(i, j, low, high): put the lesser of rows i and j into i and the greater into j, or only one that is wanted.

    Merge exchange (Batcher; Knuth, The Art of Computer Programming 3, 5.2.2 M), without what only orders those cut off.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max(n - 1, 1).bit_length() - 1
    p = top
    while p and n > 1:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1
    wanted, found = {0, n - 1, *range(cut, n - cut)}, []
    for i, j in reversed(pairs):
        if i in wanted or j in wanted:
            found.append((i, j, i in wanted, j in wanted))
            wanted |= {i, j}
    return tuple(reversed(found))


def _few(block: Block, cut: int, scratch: Scratch) -> tuple[Block, Block]:
    """(columns,), twice: the least minus the greatest value, and the trimmed mean, of updates (n, columns)."""
    n, columns = block.shape
    rows = sort_rows(list(block), scratch.array(f"spare {block.dtype}", (columns,), block.dtype), cut)
    kept = rows[cut : n - cut]
    mean = kept[0].copy()
    for row in kept[1:]:
        np.add(mean, row, out=mean)
    np.multiply(mean, block.dtype.type(1 / len(kept)), out=mean)
    return rows[0] - rows[-1], _within(mean, kept[0], kept[-1])


def _many(block: Block, cut: int, scratch: Scratch) -> tuple[Block, Block]:
    """See `_few`; the values of a column are laid side by side, where numpy sorts them with vector instructions."""
    columns = scratch.array(f"columns {block.dtype}", block.shape[::-1], block.dtype)
    columns[...] = block.T
    columns.sort(axis=1)
    kept = columns[:, cut : len(block) - cut]
    # One product: many times faster than a sum along short rows.
    mean = kept @ np.full(kept.shape[1], 1 / kept.shape[1], kept.dtype)
    return columns[:, 0] - columns[:, -1], _within(mean, kept[:, 0], kept[:, -1])


def _within(mean: Block, least: Block, greatest: Block) -> Block:
    # Rounding must not lead it beyond the values it is made of: f hostile updates stay within those of the others.
    return np.asarray(np.clip(mean, least, greatest, out=mean))


def _mixed(rows: Rows, mix: NDArray[np.float64] | None, begin: int, end: int, dtype: Any, scratch: Scratch) -> Block:
    """(n, columns): the rows, multiplied by `mix` if there is one."""
    name, columns = np.dtype(dtype).name, end - begin
    block = scratch.rows(f"rows {name}", rows.n, columns, dtype)
    rows.fill(begin, end, block)
    if mix is None:
        return block
    if mix.ndim == 1:
        np.multiply(block, mix.astype(dtype)[:, None], out=block)
        return block
    mixed = scratch.rows(f"mixed {name}", rows.n, columns, dtype)
    np.matmul(mix.astype(dtype), block, out=mixed)
    return mixed
