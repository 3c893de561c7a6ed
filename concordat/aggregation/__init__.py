"""How accepted updates become one.

Every rule is the mean of a window of the values of a coordinate, sorted: all of them (Mean), all but the f largest
and the f smallest (TrimmedMean; Yin et al., ICML 2018), or the one or two in the middle (CoordinateMedian). Sorting
first makes the result independent of the order of the updates to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.rules import Rule
from concordat.artifacts.tensors import Tensors

Named = Mapping[str, NDArray[Any]]

__all__ = ["AggregationError", "Tensors", "aggregate", "apply_delta"]


class AggregationError(Exception):
    """The rule cannot be applied to these updates."""


def aggregate(deltas: Sequence[Named], rule: Rule, max_faulty: int) -> Tensors:
    """One delta from many, all finite float32 with equal names and shapes; sums are made in float64.

    Every update counts the same: never by a weight that a site chooses. Raises AggregationError if there are too few
    for the rule to withstand `max_faulty` of them.
    """
    if not deltas:
        raise AggregationError("no update to aggregate")
    shapes = {name: tensor.shape for name, tensor in deltas[0].items()}
    if any({name: tensor.shape for name, tensor in delta.items()} != shapes for delta in deltas):
        raise AggregationError("the updates differ in tensors or shapes")
    low, high = _window(len(deltas), rule, max_faulty)
    return {name: _windowed_mean([delta[name] for delta in deltas], low, high) for name in sorted(shapes)}


def apply_delta(parent: Named, delta: Named) -> Tensors:
    """The parent with the delta added, in float32; tensors the delta does not name are the parent's.

    Raises AggregationError if the delta names a tensor the parent does not have in that shape.
    """
    for name, tensor in delta.items():
        if name not in parent or parent[name].shape != tensor.shape:
            raise AggregationError(f"the parent has no tensor {name} of shape {list(tensor.shape)}")
    return {
        name: np.asarray(tensor + delta[name] if name in delta else tensor, dtype=np.float32)
        for name, tensor in parent.items()
    }


def _window(n: int, rule: Rule, max_faulty: int) -> tuple[int, int]:
    if rule is Rule.MEAN:
        return 0, n
    if max_faulty < 0 or n <= 2 * max_faulty:
        raise AggregationError(
            f"{rule.value} with maxFaultySites {max_faulty} needs at least {2 * max_faulty + 1} verified updates; "
            f"there are {n}"
        )
    if rule is Rule.COORDINATE_MEDIAN:
        return (n - 1) // 2, n // 2 + 1
    return max_faulty, n - max_faulty


def _windowed_mean(values: list[NDArray[Any]], low: int, high: int) -> NDArray[np.float32]:
    stack = np.stack(values)
    stack.sort(axis=0)
    return np.asarray(stack[low:high].mean(axis=0, dtype=np.float64), dtype=np.float32)
