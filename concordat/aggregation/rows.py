"""The updates of a round as rows of one matrix, read by block of columns; the matrix itself is never made."""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from concordat.artifacts.tensors import Tensors, shown

Named = Mapping[str, NDArray[Any]]
"""Tensors by name: float32, float16 or ml_dtypes.bfloat16."""
Vector = NDArray[np.float32]

_DTYPES = (np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_SEARCH = 1 << 20


class AggregationError(Exception):
    """The rule cannot be applied to these updates."""


class Rows:
    """n updates with equal names and shapes, as n rows of `size` float32 columns: tensors by name, each in C order.

    Copies nothing that lies in C order, so that memory-mapped tensors stay on disk. Updates are counted from 0.
    """

    def __init__(self, updates: Sequence[Named]) -> None:
        """Raises AggregationError if there is nothing, or names, shapes or dtypes do not fit."""
        if not updates:
            raise AggregationError("no update to aggregate")
        self._shapes = {name: updates[0][name].shape for name in sorted(updates[0])}
        for position, update in enumerate(updates):
            self._check(f"update {position}", update)
        self._bounds = [0, *accumulate(prod(shape) for shape in self._shapes.values())]
        self._flat = [[update[name].reshape(-1) for name in self._shapes] for update in updates]
        if self.size == 0:
            raise AggregationError("the updates have no values: at least one tensor that is not empty is needed")

    @property
    def n(self) -> int:
        """Number of updates."""
        return len(self._flat)

    @property
    def size(self) -> int:
        """Number of columns: values in one update."""
        return self._bounds[-1]

    def select(self, positions: Sequence[int]) -> Rows:
        """The updates at these positions, in this order."""
        if not len(positions):
            raise AggregationError("no update to aggregate")
        selected = copy.copy(self)
        selected._flat = [self._flat[position] for position in positions]
        return selected

    def joined(self, reference: Named) -> Rows:
        """These updates and one more. Raises AggregationError if it does not fit them or is not finite."""
        self._check("the reference", reference)
        row = [reference[name].reshape(-1) for name in self._shapes]
        self._check_values("the reference", row)
        joined = copy.copy(self)
        joined._flat = [*self._flat, row]
        return joined

    def tensors(self, vector: Vector) -> Tensors:
        """The vector (size,) as named tensors: views of it, in the shapes of the updates."""
        parts = zip(self._shapes.items(), self._bounds, self._bounds[1:], strict=False)
        return {name: vector[begin:end].reshape(shape) for (name, shape), begin, end in parts}

    def fill(self, begin: int, end: int, out: NDArray[np.floating[Any]]) -> None:
        """Copy columns begin to end of all rows into `out` (n, end - begin), of any layout, float32 or float64."""
        for tensor, part, to in self._parts(begin, end):
            for row, target in zip(self._flat, out, strict=True):
                target[to] = row[tensor][part]

    def piece(self, row: int, begin: int, end: int, scratch: Vector) -> Vector:
        """Columns begin to end of one row: a view where it holds them as they are, else a copy in `scratch`."""
        for tensor, part, to in self._parts(begin, end):
            values = self._flat[row][tensor][part]
            if values.dtype == np.float32 and values.size == end - begin:
                return values
            scratch[to] = values
        return scratch[: end - begin]

    def spans(self, most: int, least: int) -> list[tuple[int, int]]:
        """All columns in pieces of at most `most`, cut between two tensors where that leaves at least `least`.

        Depends on the shapes and these numbers alone.
        """
        out, begin = [], 0
        while begin < self.size:
            boundary = self._bounds[bisect_left(self._bounds, min(begin + least, self.size))]
            end = boundary if boundary <= begin + most else begin + most
            out.append((begin, end))
            begin = end
        return out

    def check_finite(self) -> None:
        """Raises AggregationError at the first value that is not finite. Slow: for when arithmetic has met one."""
        for position, row in enumerate(self._flat):
            self._check_values(f"update {position}", row)

    def _parts(self, begin: int, end: int) -> Iterator[tuple[int, slice, slice]]:
        """The tensors that the columns lie in: (its index, its part, that part's place among the columns)."""
        position, tensor = begin, bisect_right(self._bounds, begin) - 1
        while position < end:
            first, stop = self._bounds[tensor], min(end, self._bounds[tensor + 1])
            yield tensor, slice(position - first, stop - first), slice(position - begin, stop - begin)
            position, tensor = stop, tensor + 1

    def _check(self, who: str, update: Named) -> None:
        for name in sorted(update.keys() ^ self._shapes.keys()):
            one, other = (who, "update 0") if name in update else ("update 0", who)
            raise AggregationError(f"the updates differ in tensors: {shown(name)} is in {one} and not in {other}")
        for name, shape in self._shapes.items():
            if update[name].shape != shape:
                raise AggregationError(
                    f"the updates differ in shapes: {shown(name)} has {list(update[name].shape)} in {who} and "
                    f"{list(shape)} in update 0"
                )
            if update[name].dtype not in _DTYPES:
                raise AggregationError(
                    f"{who}: tensor {shown(name)} has dtype {update[name].dtype}, expected "
                    f"{', '.join(map(str, _DTYPES))}"
                )

    def _check_values(self, who: str, row: Sequence[NDArray[Any]]) -> None:
        for name, values in zip(self._shapes, row, strict=True):
            for begin in range(0, values.size, _SEARCH):
                wide = values[begin : begin + _SEARCH].astype(np.float32)
                bad = np.flatnonzero(~np.isfinite(wide))
                if bad.size:
                    raise AggregationError(
                        f"{who}: tensor {shown(name)} has the value {wide[bad[0]]} at index {begin + bad[0]}; what is "
                        "not finite must be rejected before aggregation"
                    )
