"""Svd: both factors trained, and updates compared as products that are never formed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation import AggregationError, Gram, mixing, shares
from concordat.api.aggregation_rules import PreAggregation, Rule, shortage
from concordat.api.round import Factor
from concordat.lora import LoraError, product_gram, product_norms, svd_mean, svd_trimmed
from concordat.protocol.contract import Contract
from concordat.tensors import Named, Tensors
from concordat_aggregator.inputs import Parent, RequestError
from concordat_aggregator.method import Combined, Method, OneFactor, StoredUpdates, check_shapes, without_last


def method_of(contract: Contract, parent: Parent, work: Path) -> Method:
    """Return the method of a contract. Raises RequestError if training its factor cannot change anything."""
    try:
        if contract.recipe.train_factor is Factor.BOTH:
            return BothFactors(contract, parent, work)
        return OneFactor(contract, parent, work)
    except LoraError as error:
        raise RequestError(f"parent {contract.parent.digest}: {error}") from error


class BothFactors:
    """See Method."""

    def __init__(self, contract: Contract, parent: Parent, work: Path) -> None:
        self._contract = contract
        self._adapter = parent.adapter
        self._stored = StoredUpdates(work)

    def measure(self, delta: Named) -> tuple[Named, dict[str, float]]:
        """See Method."""
        return delta, product_norms(delta, self._adapter)

    def admit(self, site: str, measured: Named) -> None:
        """See Method."""
        self._stored.add(site, measured)

    def compare(self, sites: Sequence[str], ancestors: Sequence[Tensors]) -> tuple[Gram, NDArray[np.float64] | None]:
        """See Method."""
        updates = self._stored.all(sites)
        # From the parent, the step back is an update of both factors like any other, and minus the last aggregate.
        now = self._adapter.tensors()
        back = {n: t - now[n] for n, t in check_shapes(ancestors[0], now).items()} if ancestors else {}
        if not updates or not any(np.any(tensor) for tensor in back.values()):
            return Gram(*product_gram(updates, self._adapter)) if updates else Gram.empty(), None
        products, cosines = without_last(Gram(*product_gram([*updates, back], self._adapter)))
        return products, -cosines

    def combine(self, sites: Sequence[str], faults: int, products: Gram, *, reference: str | None) -> Combined:
        """See Method."""
        policy, updates = self._contract.aggregation, self._stored.all(sites)
        lack = shortage(policy.rule, faults, len(sites))
        if lack is not None:
            raise AggregationError(lack)
        if policy.rule is Rule.TRIMMED_MEAN:
            pre = policy.pre_aggregation
            mixed = None if pre is PreAggregation.NONE else mixing(products, pre, faults)
            found = svd_trimmed(updates, mixed, faults, self._adapter)
            return self._combined(found.tensors, None, found.discarded)
        weights = shares(products, policy.rule, faults, pre=policy.pre_aggregation)
        found = svd_mean(updates, weights.tolist(), self._adapter)
        return self._combined(found.tensors, weights, found.discarded)

    def _combined(self, candidate: Tensors, weights: NDArray[np.float64] | None, error: float) -> Combined:
        moved = {name: candidate[name] - tensor for name, tensor in self._adapter.tensors().items()}
        return Combined(candidate, math.hypot(*product_norms(moved, self._adapter).values()), weights, error)
