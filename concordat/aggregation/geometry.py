"""Inner products and distances of updates, from one pass over them.

Distances from |x|² + |y|² − 2xy lose all their digits when the updates are close compared to their norms. So rows are
multiplied as differences from one of them, in float32 by blocks of columns, and the blocks are added up in float64. Two
that are closer to each other than a thousandth of their distance from that one have an error of that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.blocks import Progress, Scratch, run, width
from concordat.aggregation.rows import Rows

Matrix = NDArray[np.float64]

_FEW = 32
"""Up to so many rows are multiplied in chunks of columns."""
_CHUNK = 512
_FAR = 100.0
"""Squared distance from the origin, relative to that between updates, above which float32 rounds too much away."""
_FAINT = 1e-30
"""Mean square of a column below which too many squares vanish from float32."""


@dataclass(frozen=True, eq=False)
class Gram:
    """How n updates lie to each other. Everything is float64 and symmetric."""

    inner: Matrix
    """(n, n): inner products of the updates."""
    distances2: Matrix
    """(n, n): squared distances, at least 0, and 0 of an update from itself; not taken from `inner`, see above."""
    known_basis: Matrix | None = None
    """See `basis`, which is made from the other two without it, and then good to outliers 10^8 times as far out."""

    @classmethod
    def empty(cls) -> Gram:
        """Return the Gram of no updates."""
        return cls(np.zeros((0, 0)), np.zeros((0, 0)))

    @property
    def n(self) -> int:
        """Number of updates."""
        return len(self.inner)

    @property
    def norms(self) -> NDArray[np.float64]:
        """(n,): Frobenius norms over all tensors."""
        return np.sqrt(np.maximum(self.inner.diagonal(), 0))

    @cached_property
    def basis(self) -> Matrix:
        """(n + 1, n + 1): inner products of an origin, which lies among the updates, and the n differences from it."""
        if self.known_basis is not None:
            return self.known_basis
        origin, _ = middle(self.distances2)
        away, squares = self.distances2[origin], self.inner.diagonal()
        basis = np.empty((self.n + 1, self.n + 1))
        basis[0, 0] = squares[origin]
        basis[0, 1:] = basis[1:, 0] = (squares - squares[origin] - away) / 2
        basis[1:, 1:] = (away[:, None] + away - self.distances2) / 2
        return basis

    @property
    def centred(self) -> Matrix:
        """(n, n): inner products of the differences from the origin."""
        return self.basis[1:, 1:]

    def select(self, positions: Sequence[int]) -> Gram:
        """Return the updates at these positions, in this order."""
        kept = np.asarray(positions, dtype=np.intp)
        with_origin = np.concatenate([[0], kept + 1])
        square, basis = np.ix_(kept, kept), self.basis[np.ix_(with_origin, with_origin)] if self.n else None
        return Gram(self.inner[square], self.distances2[square], basis)

    def mixed(self, mix: Matrix) -> Gram:
        """Return the Gram of the rows `mix` (m, n) @ updates, without making them."""
        to_basis = np.zeros((len(mix) + 1, self.n + 1))
        to_basis[0, 0], to_basis[1:, 0], to_basis[1:, 1:] = 1, mix.sum(axis=1) - 1, mix
        return _from_basis(to_basis @ self.basis @ to_basis.T)


def gram(rows: Rows, *, progress: Progress | None = None) -> Gram:
    """Return the Gram of all rows, in one pass; three where float32 does not hold it, and `progress` then begins again.

    Raises AggregationError, with the update and the tensor, if a value is not finite.
    """
    found = _pass(rows, 0, np.float32, progress)
    if _holds(found, rows.size):
        return found
    # Squares overflow or vanish, or the first update is an outlier, from which the others look all the same. The one of
    # median norm is no outlier, or a small one, while fewer than half are.
    norms2 = dots(rows, rows, dtype=np.float64, progress=progress)
    return _pass(rows, int(np.argsort(norms2, kind="stable")[(rows.n - 1) // 2]), np.float64, progress)


def middle(distances2: Matrix) -> tuple[int, float]:
    """Return the update whose median distance to the others is smallest, and that distance.

    With a majority that lies together, it is in their midst or as close to them as they are.
    """
    n = len(distances2)
    if n == 1:
        return 0, 0.0
    medians = np.sort(distances2, axis=1)[:, 1 + (n - 2) // 2]
    found = int(np.lexsort((distances2.sum(axis=1), medians))[0])
    return found, float(np.sqrt(medians[found]))


def dots(left: Rows, right: Rows, *, dtype: Any = np.float32, progress: Progress | None = None) -> NDArray[np.float64]:
    """(n,): inner products of the rows of `left` (n) with those of `right`, n or 1, in one pass.

    Multiplied in float64 where float32 overflows or underflows. Raises AggregationError if a value is not finite.
    """
    scratch = Scratch()

    def task(begin: int, end: int) -> NDArray[np.float64]:
        one = scratch.rows("left", left.n, end - begin, dtype)
        other = one if right is left else scratch.rows("right", right.n, end - begin, dtype)
        left.fill(begin, end, one)
        if right is not left:
            right.fill(begin, end, other)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.vecdot(one, other), dtype=np.float64)

    found = np.zeros(left.n)
    for block in run(task, left, width(left.n, np.dtype(dtype).itemsize), progress):
        found += block
    if dtype == np.float32 and not (np.isfinite(found).all() and np.abs(found).min() > _FAINT * left.size):
        return dots(left, right, dtype=np.float64, progress=progress)
    if not np.isfinite(found).all():
        left.check_finite()
        right.check_finite()
    return found


def _pass(rows: Rows, origin: int, dtype: Any, progress: Progress | None) -> Gram:
    order = [origin, *(row for row in range(rows.n) if row != origin)]
    ordered, scratch = rows.select(order), Scratch()
    n = rows.n

    def task(begin: int, end: int) -> tuple[Matrix, NDArray[np.float64]]:
        padded = -(-(end - begin) // _CHUNK) * _CHUNK
        block = scratch.rows("block", n, padded, dtype)
        block[:, end - begin :] = 0
        ordered.fill(begin, end, block[:, : end - begin])
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.vecdot(block, block).astype(np.float64)
            block[1:] -= block[0]
            return _products(block), squares

    products, squares = np.zeros((n, n)), np.zeros(n)
    for block_products, block_squares in run(task, rows, width(n, np.dtype(dtype).itemsize), progress):
        products += block_products
        squares += block_squares
    products[0, 0] = squares[0]
    products[1:, 0] = products[0, 1:]
    # Row 0 is the origin; its difference from itself is 0.
    basis = np.zeros((n + 1, n + 1))
    kept = [0, *range(2, n + 1)]
    basis[np.ix_(kept, kept)] = products
    return _from_basis(basis, squares).select(np.argsort(order).tolist())


def _from_basis(basis: Matrix, squares: NDArray[np.float64] | None = None) -> Gram:
    """`squares` (n,): squared norms summed up directly, right also for an update much smaller than the others."""
    basis = (basis + basis.T) / 2
    along, centred = basis[0, 1:], basis[1:, 1:]
    own = centred.diagonal()
    with np.errstate(invalid="ignore"):
        inner = centred + (along[:, None] + along) + basis[0, 0]
        distances2 = np.maximum(own[:, None] + own - 2 * centred, 0)
    np.fill_diagonal(distances2, 0)
    np.fill_diagonal(inner, np.maximum(inner.diagonal(), 0) if squares is None else squares)
    return Gram(inner, distances2, basis)


def _products(block: NDArray[Any]) -> Matrix:
    """block @ block.T (n, n) in float64; [0, 0] and the rest of column 0 may be missing."""
    n, columns = block.shape
    if n > _FEW or n == 1:
        return np.asarray(block @ block.T, dtype=np.float64)
    # OpenBLAS is twice as fast with few rows if the columns come in pieces and the operands differ: without the first
    # row on one side, numpy does not take the product for a symmetric one.
    chunks = block.reshape(n, columns // _CHUNK, _CHUNK)
    products = np.zeros((n, n))
    products[:, 1:] = np.matmul(chunks.transpose(1, 0, 2), chunks[1:].transpose(1, 2, 0)).sum(axis=0, dtype=np.float64)
    return products


def _holds(found: Gram, size: int) -> bool:
    """Return whether the distances are right: finite, well above underflow, and seen from near by."""
    if not (np.isfinite(found.basis).all() and np.isfinite(found.inner).all()):
        return False
    row, distance = middle(found.distances2)
    near = found.centred[row, row] <= _FAR * distance**2
    return bool(near and distance**2 > _FAINT * size)
