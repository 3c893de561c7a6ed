"""The updates of a round as rows of one matrix, read by block of columns; the matrix itself is never made."""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from concordat.tensors import Named, Tensors, shown

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
        self._updates = list(updates)
        self._runs = _runs(self._updates, list(self._shapes))
        sizes = (sum(prod(self._shapes[name]) for name in run) for run in self._runs)
        self._bounds = [0, *accumulate(sizes)]
        if self.size == 0:
            raise AggregationError("the updates have no values: at least one tensor that is not empty is needed")
        self._flat = [[_joined(update, run) for run in self._runs] for update in updates]

    @property
    def n(self) -> int:
        """Number of updates."""
        return len(self._flat)

    @property
    def size(self) -> int:
        """Number of columns: values in one update."""
        return self._bounds[-1]

    def select(self, positions: Sequence[int]) -> Rows:
        """Return the updates at these positions, in this order."""
        if not len(positions):
            raise AggregationError("no update to aggregate")
        selected = copy.copy(self)
        selected._updates = [self._updates[position] for position in positions]
        selected._flat = [self._flat[position] for position in positions]
        return selected

    def joined(self, reference: Named) -> Rows:
        """These updates and one more. Raises AggregationError if it does not fit them or is not finite."""
        self._check("the reference", reference)
        self._check_values("the reference", reference)
        return Rows([*self._updates, reference])

    def tensors(self, vector: Vector) -> Tensors:
        """Return the vector (size,) as named tensors: views of it, in the shapes of the updates."""
        bounds = [0, *accumulate(map(prod, self._shapes.values()))]
        parts = zip(self._shapes.items(), bounds, bounds[1:], strict=False)
        return {name: vector[begin:end].reshape(shape) for (name, shape), begin, end in parts}

    def fill(self, begin: int, end: int, out: NDArray[np.floating[Any]]) -> None:
        """Copy columns begin to end of all rows into `out` (n, end - begin), of any layout, float32 or float64."""
        for run, part, to in self._parts(begin, end):
            for row, target in zip(self._flat, out, strict=True):
                target[to] = row[run][part]

    def piece(self, row: int, begin: int, end: int, scratch: Vector) -> Vector:
        """Columns begin to end of one row: a view where it holds them as they are, else a copy in `scratch`."""
        for run, part, to in self._parts(begin, end):
            values = self._flat[row][run][part]
            if values.dtype == np.float32 and values.size == end - begin:
                return values
            scratch[to] = values
        return scratch[: end - begin]

    def spans(self, most: int, least: int | None = None) -> list[tuple[int, int]]:
        """All columns in pieces of at most `most`.

        With `least`, a piece of so many columns ends where a `piece` would else be copied; without, the pieces depend
        on the number of columns alone.
        """
        out, begin = [], 0
        while begin < self.size:
            end = min(begin + most, self.size)
            if least is not None:
                end = min(end, self._bounds[bisect_left(self._bounds, min(begin + least, self.size))])
            out.append((begin, end))
            begin = end
        return out

    def check_finite(self) -> None:
        """Raises AggregationError at the first value that is not finite. Slow: for when arithmetic has met one."""
        for position, update in enumerate(self._updates):
            self._check_values(f"update {position}", update)

    def _parts(self, begin: int, end: int) -> Iterator[tuple[int, slice, slice]]:
        """Return the runs that the columns lie in: (its index, its part, that part's place among the columns)."""
        position, run = begin, bisect_right(self._bounds, begin) - 1
        while position < end:
            first, stop = self._bounds[run], min(end, self._bounds[run + 1])
            yield run, slice(position - first, stop - first), slice(position - begin, stop - begin)
            position, run = stop, run + 1

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

    def _check_values(self, who: str, update: Named) -> None:
        for name in self._shapes:
            values = update[name].reshape(-1)
            for begin in range(0, values.size, _SEARCH):
                wide = values[begin : begin + _SEARCH].astype(np.float32)
                bad = np.flatnonzero(~np.isfinite(wide))
                if bad.size:
                    raise AggregationError(
                        f"{who}: tensor {shown(name)} has the value {wide[bad[0]]} at index {begin + bad[0]}; what is "
                        "not finite must be rejected before aggregation"
                    )


def _runs(updates: Sequence[Named], names: Sequence[str]) -> list[list[str]]:
    """Return the tensors in runs that lie one behind the other in the memory of every update, as they do in a mapped
    file.

    A run is read as one: hundreds of small tensors would cost more time in Python than in numpy.
    """
    places = [[_place(update[name]) for name in names] for update in updates]
    runs: list[list[str]] = []
    for i, name in enumerate(names):
        if i and all(_follows(place[i - 1], place[i]) for place in places):
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs


def _place(tensor: NDArray[Any]) -> tuple[np.dtype[Any], int, int] | None:
    """Dtype, first and last address; None if the values do not lie in order."""
    if not tensor.flags.c_contiguous:
        return None
    begin: int = tensor.__array_interface__["data"][0]
    return tensor.dtype, begin, begin + tensor.nbytes


def _follows(one: tuple[np.dtype[Any], int, int] | None, other: tuple[np.dtype[Any], int, int] | None) -> bool:
    return one is not None and other is not None and one[0] == other[0] and one[2] == other[1]


def _joined(update: Named, run: Sequence[str]) -> NDArray[Any]:
    """Return the values of a run, flat: a view. The caller keeps the update, and so all of that memory."""
    first = update[run[0]].reshape(-1)
    if len(run) == 1:
        return first
    size = sum(update[name].size for name in run)
    return np.lib.stride_tricks.as_strided(first, (size,), (first.itemsize,), writeable=False)
