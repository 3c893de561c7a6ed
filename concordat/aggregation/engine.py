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
from concordat.aggregation.coordinate_rules import Window, by_coordinate, median, nearest_to_median, trimmed
from concordat.aggregation.geometry import Gram, Matrix
from concordat.aggregation.pre import arc, bucketing, nnm
from concordat.aggregation.rows import AggregationError, Rows, Vector
from concordat.aggregation.sums import weighted_sum
from concordat.aggregation.weighted_rules import Weights
from concordat.api.aggregation_rules import COORDINATE, STANDALONE, PreAggregation, Rule, shortage
from concordat.tensors import Named, Tensors


@dataclass(frozen=True, eq=False)
class Parameters:
    """The settings of a rule, beside the updates and the number of faults."""

    pre: PreAggregation = PreAggregation.NONE
    """The pre-aggregation, before the rule."""
    max_norm: float | None = None
    """The bound of NormBoundedMean."""
    reference: Named | None = None
    """The trusted update of FLTrust."""
    seed: int = 0
    """Seed of the pairs of Bucketing."""


_DEFAULTS = Parameters()


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The result of a rule."""

    tensors: Tensors
    """float32, by name."""
    weights: NDArray[np.float64] | None
    """(n,): the share of each update, where the result is a weighted sum of them; None for rules by coordinate."""


def aggregate(
    updates: Rows | Sequence[Named],
    rule: Rule,
    max_faulty: int,
    *,
    parameters: Parameters = _DEFAULTS,
    gram: Gram | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Aggregate:
    """Return one update from n, by a rule that withstands `max_faulty` of them.

    `gram`: that of these updates, if it is at hand. `threads`: changes no bit. Raises AggregationError if there are too
    few updates for the rule, if they do not fit each other, or if a value is not finite.
    """
    rows = updates if isinstance(updates, Rows) else Rows(updates)
    method = _Method(rule, max_faulty, parameters)
    method.check(rows.n)
    if gram is not None and gram.n != rows.n:
        raise AggregationError(f"the Gram is of {gram.n} updates and there are {rows.n}; take the same ones from both")
    trusted = _with_reference(rows, parameters.reference) if rule is Rule.FLTRUST else None
    passes = 1 + (gram is None and (method.by_gram or method.by_norms)) + (trusted is not None)
    first, last = step(progress, 0, passes), step(progress, passes - 1, passes)
    with one_blas_thread():
        if gram is None:
            gram = geometry.gram(rows, threads=threads, progress=first) if method.by_gram else Gram.empty()
        norms = gram.norms
        if not gram.n and method.by_norms:
            norms = np.sqrt(geometry.dots(rows, rows, threads=threads, progress=first))
        if rule in COORDINATE:
            return Aggregate(rows.tensors(_by_coordinate(rows, method, gram, norms, threads, last)), None)
        if trusted is not None:
            before = step(progress, passes - 2, passes)
            along = geometry.dots(trusted, trusted.select([rows.n]), threads=threads, progress=before)
            weights = rules.fltrust(norms, along[:-1], math.sqrt(along[-1]))
        else:
            weights = method.weights(rows.n, gram, norms)
        return Aggregate(rows.tensors(weighted_sum(rows, weights, threads=threads, progress=last)), weights)


def shares(
    gram: Gram,
    rule: Rule,
    max_faulty: int,
    *,
    parameters: Parameters = _DEFAULTS,
) -> NDArray[np.float64]:
    """Return (n,), the weights of `aggregate` with these arguments, for whoever adds the updates up otherwise.

    Raises AggregationError as it does, and for the rules that take more than a Gram: by coordinate, and FLTrust.
    """
    if rule in COORDINATE or rule is Rule.FLTRUST:
        raise AggregationError(f"{rule.value} gives no shares by a Gram; choose a rule that is a sum of updates")
    method = _Method(rule, max_faulty, parameters)
    method.check(gram.n)
    with one_blas_thread():
        return method.weights(gram.n, gram, gram.norms)


def mixing(gram: Gram, pre: PreAggregation, max_faulty: int, *, seed: int = 0) -> Matrix:
    """(m, n): the matrix that a pre-aggregation multiplies the updates with."""
    mix = _Method(Rule.TRIMMED_MEAN, max_faulty, Parameters(pre=pre, seed=seed)).mix(gram.n, gram, gram.norms)
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


@dataclass(frozen=True)
class _Method:
    rule: Rule
    max_faulty: int
    parameters: Parameters

    @property
    def pre(self) -> PreAggregation:
        return self.parameters.pre

    @property
    def by_gram(self) -> bool:
        return self.rule in rules.BY_GRAM or self.rule is Rule.BULYAN or self.pre is PreAggregation.NNM

    @property
    def by_norms(self) -> bool:
        return self.rule in (Rule.NORM_BOUNDED_MEAN, Rule.FLTRUST) or self.pre is PreAggregation.ARC

    def check(self, updates: int) -> None:
        """Raises AggregationError if the method cannot be applied to so many updates."""
        if self.max_faulty < 0:
            raise AggregationError(f"maxFaultySites is {self.max_faulty}; it must be 0 or more")
        lack = shortage(self.rule, self.pre, self.max_faulty, updates)
        if lack is not None:
            raise AggregationError(lack)
        if self.rule in STANDALONE and self.pre is not PreAggregation.NONE:
            raise AggregationError(
                f"{self.rule.value} takes no pre-aggregation, and preAggregation is {self.pre.value}: set it to None"
            )
        bound = self.parameters.max_norm
        if self.rule is Rule.NORM_BOUNDED_MEAN and not (bound is not None and 0 < bound < math.inf):
            raise AggregationError(f"NormBoundedMean needs a max_norm that is positive and finite; it is {bound}")

    def mix(self, n: int, gram: Gram, norms: Weights) -> NDArray[np.float64] | None:
        """See `by_coordinate`; None without a pre-aggregation."""
        match self.pre:
            case PreAggregation.NONE:
                return None
            case PreAggregation.NNM:
                return nnm(gram.distances2, self.max_faulty)
            case PreAggregation.BUCKETING:
                return bucketing(n, self.parameters.seed)
            case PreAggregation.ARC:
                return arc(norms, self.max_faulty)

    def weights(self, n: int, gram: Gram, norms: Weights) -> Weights:
        """(n,), of a rule that is neither by coordinate nor FLTrust."""
        if self.rule is Rule.MEAN:
            return np.full(n, 1 / n)
        bound = self.parameters.max_norm
        if bound is not None and self.rule is Rule.NORM_BOUNDED_MEAN:
            return rules.norm_bounded(norms, bound)
        mix = self.mix(n, gram, norms)
        if mix is None:
            return rules.BY_GRAM[self.rule](gram, self.max_faulty)
        return np.asarray(rules.BY_GRAM[self.rule](gram.mixed(_matrix(mix)), self.max_faulty) @ _matrix(mix))


def _by_coordinate(
    rows: Rows, method: _Method, gram: Gram, norms: Weights, threads: int | None, progress: Progress | None
) -> Vector:
    faulty, mix = method.max_faulty, method.mix(rows.n, gram, norms)
    match method.rule:
        case Rule.COORDINATE_MEDIAN:
            window: Window = median
        case Rule.TRIMMED_MEAN:
            window = trimmed(faulty)
        case Rule.MEAMED:
            window = nearest_to_median((rows.n if mix is None else len(mix)) - faulty)
        case _:
            chosen = rules.bulyan_selection(gram if mix is None else gram.mixed(_matrix(mix)), faulty)
            window = nearest_to_median(len(chosen) - 2 * faulty)
            if mix is None or mix.ndim == 1:
                rows = rows.select(chosen)
            mix = mix if mix is None else mix[chosen]
    return by_coordinate(rows, window, mix, threads=threads, progress=progress)


def _with_reference(rows: Rows, reference: Named | None) -> Rows:
    if reference is None:
        raise AggregationError("FLTrust needs a reference: the update of a site that the hub trusts")
    return rows.joined(reference)


def _matrix(mix: NDArray[np.float64]) -> Matrix:
    return np.diag(mix) if mix.ndim == 1 else mix
