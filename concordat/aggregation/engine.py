"""A rule applied to updates: what must be known of them, then one pass that makes the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation import geometry
from concordat.aggregation import weighted_rules as rules
from concordat.aggregation.blocks import Progress, one_blas_thread, step
from concordat.aggregation.coordinate_rules import trimmed_mean
from concordat.aggregation.geometry import Gram, Matrix
from concordat.aggregation.pre import arc, nnm
from concordat.aggregation.rows import AggregationError, Rows
from concordat.aggregation.sums import weighted_sum
from concordat.aggregation.weighted_rules import Weights
from concordat.api.aggregation_rules import UNPROTECTED, PreAggregation, Rule, shortage
from concordat.tensors import Named, Tensors


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The result of a rule."""

    tensors: Tensors
    """float32, by name."""
    weights: Weights | None
    """(n,): the share of each update, where the result is a weighted sum of them; None for TrimmedMean."""


def aggregate(
    updates: Rows | Sequence[Named],
    rule: Rule,
    max_faulty: int,
    *,
    pre: PreAggregation = PreAggregation.NONE,
    reference: Named | None = None,
    gram: Gram | None = None,
    progress: Progress | None = None,
) -> Aggregate:
    """Return one update from n, by a rule that withstands `max_faulty` of them.

    `pre`: done to the updates before. `reference`: the trusted update of FLTrust. `gram`: that of these updates, if it
    is at hand. Raises AggregationError if there are too few updates for the rule, if they do not fit each other, or if
    a value is not finite.
    """
    rows = updates if isinstance(updates, Rows) else Rows(updates)
    _check(rule, pre, max_faulty, rows.n)
    if gram is not None and gram.n != rows.n:
        raise AggregationError(f"the Gram is of {gram.n} updates and there are {rows.n}; take the same ones from both")
    trusted = _with_reference(rows, reference) if rule is Rule.FLTRUST else None
    by_gram = rule in rules.BY_GRAM or pre is PreAggregation.NNM
    by_norms = rule is Rule.FLTRUST or pre is PreAggregation.ARC
    passes = 1 + (gram is None and (by_gram or by_norms)) + (trusted is not None)
    first, last = step(progress, 0, passes), step(progress, passes - 1, passes)
    with one_blas_thread():
        if gram is None:
            gram = geometry.gram(rows, progress=first) if by_gram else Gram.empty()
        norms = gram.norms
        if not gram.n and by_norms:
            norms = np.sqrt(geometry.dots(rows, rows, progress=first))
        if rule is Rule.TRIMMED_MEAN:
            mix = _mix(pre, gram, norms, max_faulty)
            return Aggregate(rows.tensors(trimmed_mean(rows, max_faulty, mix, progress=last)), None)
        if trusted is not None:
            before = step(progress, passes - 2, passes)
            along = geometry.dots(trusted, trusted.select([rows.n]), progress=before)
            weights = rules.fltrust(norms, along[:-1], math.sqrt(along[-1]))
        else:
            weights = _weights(rule, pre, max_faulty, rows.n, gram)
        return Aggregate(rows.tensors(weighted_sum(rows, weights, progress=last)), weights)


def shares(gram: Gram, rule: Rule, max_faulty: int, *, pre: PreAggregation = PreAggregation.NONE) -> Weights:
    """Return (n,), the weights of `aggregate` with these arguments, for whoever adds the updates up otherwise.

    Raises AggregationError as it does, and for the rules that take more than a Gram: TrimmedMean and FLTrust.
    """
    if rule in (Rule.TRIMMED_MEAN, Rule.FLTRUST):
        raise AggregationError(f"{rule.value} gives no shares by a Gram; choose a rule that is a sum of updates")
    _check(rule, pre, max_faulty, gram.n)
    with one_blas_thread():
        return _weights(rule, pre, max_faulty, gram.n, gram)


def mixing(gram: Gram, pre: PreAggregation, max_faulty: int) -> Matrix:
    """(n, n): the matrix that a pre-aggregation multiplies the updates with."""
    mix = _mix(pre, gram, gram.norms, max_faulty)
    return np.eye(gram.n) if mix is None else _matrix(mix)


def apply_delta(parent: Named, delta: Named) -> Tensors:
    """Return the parent with the delta added, in float32; tensors the delta does not name are the parent's. What is too
    large for float32 is infinite.

    Raises AggregationError if the delta names a tensor the parent does not have in that shape.
    """
    for name, tensor in delta.items():
        if name not in parent or parent[name].shape != tensor.shape:
            raise AggregationError(f"the parent has no tensor {name} of shape {list(tensor.shape)}")
    with np.errstate(over="ignore"):
        return {
            name: np.asarray(tensor + delta[name] if name in delta else tensor, dtype=np.float32)
            for name, tensor in parent.items()
        }


def _check(rule: Rule, pre: PreAggregation, max_faulty: int, updates: int) -> None:
    """Raises AggregationError if the rule cannot be applied to so many updates, or not after `pre`."""
    if max_faulty < 0:
        raise AggregationError(f"maxFaultySites is {max_faulty}; it must be 0 or more")
    lack = shortage(rule, max_faulty, updates)
    if lack is not None:
        raise AggregationError(lack)
    if rule in UNPROTECTED and pre is not PreAggregation.NONE:
        raise AggregationError(
            f"{rule.value} takes no pre-aggregation, and preAggregation is {pre.value}: set it to None"
        )


def _mix(pre: PreAggregation, gram: Gram, norms: Weights, max_faulty: int) -> NDArray[np.float64] | None:
    """See `trimmed_mean`; None without a pre-aggregation."""
    match pre:
        case PreAggregation.NONE:
            return None
        case PreAggregation.NNM:
            return nnm(gram.distances2, max_faulty)
        case PreAggregation.ARC:
            return arc(norms, max_faulty)


def _weights(rule: Rule, pre: PreAggregation, max_faulty: int, n: int, gram: Gram) -> Weights:
    """(n,), of a rule that is neither TrimmedMean nor FLTrust."""
    if rule is Rule.MEAN:
        return np.full(n, 1 / n)
    mix = _mix(pre, gram, gram.norms, max_faulty)
    if mix is None:
        return rules.BY_GRAM[rule](gram, max_faulty)
    return np.asarray(rules.BY_GRAM[rule](gram.mixed(_matrix(mix)), max_faulty) @ _matrix(mix))


def _with_reference(rows: Rows, reference: Named | None) -> Rows:
    if reference is None:
        raise AggregationError("FLTrust needs a reference: the update of a site that the hub trusts")
    return rows.joined(reference)


def _matrix(mix: NDArray[np.float64]) -> Matrix:
    return np.diag(mix) if mix.ndim == 1 else mix
