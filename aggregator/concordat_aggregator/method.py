"""Where updates are measured and combined: in the change of the weights, not in the numbers that happen to be trained.

With one factor trained an update is a vector of whitened coordinates, and lies on the disk as such; with both, it is a
product that is never formed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation import Gram, Rows, aggregate, apply_delta, gram
from concordat.api.round import Factor, LoraMode
from concordat.lora import Whitening, orthonormal, read_adapter
from concordat.protocol.contract import Contract
from concordat.tensors import Named, Tensors, map_tensors, save_tensors
from concordat_aggregator.inputs import Parent, RequestError, check_finite

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Combined:
    """The candidate adapter and what it was made by."""

    candidate: Tensors
    norm: float
    """Of the weight change that the aggregate makes."""
    weights: NDArray[np.float64] | None
    """Each update's share, where the rule gives shares."""
    error: float
    """Share of the aggregate that the LoRA mode lost; 0 where it is exact."""


class Method(Protocol):
    """A way to measure and combine updates: for one trained factor (OneFactor) or for both (BothFactors)."""

    def measure(self, delta: Named) -> tuple[Named, dict[str, float]]:
        """Return the update as it is kept, and the Frobenius norm of its weight change by module."""

    def admit(self, site: str, measured: Named) -> None:
        """Keep an update that was measured and passed its own checks, for comparison with the others."""

    def compare(self, sites: Sequence[str], ancestors: Sequence[Tensors]) -> tuple[Gram, NDArray[np.float64] | None]:
        """Return the Gram matrix of these sites' updates, and the cosine of each to the last aggregate, the largest
        where several count, None where there is none. `ancestors`: the adapters that the parent was made from, newest
        first.
        """

    def combine(self, sites: Sequence[str], faults: int, products: Gram, *, reference: str | None) -> Combined:
        """One candidate from these sites' updates. Raises AggregationError, LoraError."""


class StoredUpdates:
    """The updates that passed their own checks, by site, on the disk."""

    def __init__(self, work: Path) -> None:
        self._folder = work / "rows"
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, site: str, update: Named) -> None:
        """Keep one."""
        save_tensors(self._file(site), update)

    def all(self, sites: Sequence[str]) -> list[Named]:
        """Those of these sites, memory-mapped."""
        return [map_tensors(self._file(site)) for site in sites]

    def _file(self, site: str) -> Path:
        return self._folder / f"{site}.safetensors"


class OneFactor:
    """Alternating and FrozenA: the mean of the trained factor is the mean of the weight changes, exactly."""

    def __init__(self, contract: Contract, parent: Parent, work: Path) -> None:
        self._contract = contract
        self._parent = parent
        self._factor: Factor = contract.recipe.train_factor
        self._whitening = Whitening.of(parent.adapter, self._factor)
        self._stored = StoredUpdates(work)

    def measure(self, delta: Named) -> tuple[Named, dict[str, float]]:
        """See Method."""
        return self._whitening.measure(delta)

    def admit(self, site: str, measured: Named) -> None:
        """See Method."""
        self._stored.add(site, measured)

    def compare(self, sites: Sequence[str], ancestors: Sequence[Tensors]) -> tuple[Gram, NDArray[np.float64] | None]:
        """See Method."""
        updates = self._stored.all(sites)
        if not ancestors or not updates:
            return gram(Rows(updates)) if updates else Gram.empty(), None
        # Where the factors take turns, the last aggregate of this one is two steps back, and each adapter is in a gauge
        # of its own: both steps count, as weight changes.
        chain = [check_shapes(made, self._parent.tensors) for made in (self._parent.tensors, *ancestors)]
        steps = [self._whitening.nearest(later, earlier) for later, earlier in pairwise(chain)]
        return without_last(gram(Rows([*updates, *steps])), len(steps))

    def combine(self, sites: Sequence[str], faults: int, products: Gram, *, reference: str | None) -> Combined:
        """See Method."""
        policy = self._contract.aggregation
        aggregated = aggregate(
            Rows(self._stored.all(sites)),
            policy.rule,
            faults,
            pre=policy.pre_aggregation,
            reference=None if reference is None else self._stored.all([reference])[0],
            gram=products,
            progress=_Progress(),
        )
        candidate = apply_delta(self._parent.tensors, self._whitening.unwhiten(aggregated.tensors))
        if policy.lora is LoraMode.ALTERNATING:
            # The next round holds fixed what this one trained.
            check_finite(candidate)
            candidate = orthonormal(read_adapter(candidate, self._parent.config), self._factor)
        return Combined(candidate, _norm(aggregated.tensors), aggregated.weights, 0.0)


def check_shapes(ancestor: Tensors, parent: Named) -> Tensors:
    """Return the ancestor. Raises RequestError unless it has the parent's tensors in their shapes."""
    if {n: t.shape for n, t in ancestor.items()} != {n: t.shape for n, t in parent.items()}:
        raise RequestError("an ancestor is an adapter of another shape than the parent")
    return ancestor


def without_last(whole: Gram, count: int = 1) -> tuple[Gram, NDArray[np.float64]]:
    """Return the Gram of all but the last `count`, and the largest cosine of each of them to one of the last; 0 where
    one of the two is 0.
    """
    norms, n = whole.norms, whole.n - count
    scale = np.outer(norms[:n], norms[n:])
    cosines = np.divide(whole.inner[:n, n:], scale, out=np.zeros_like(scale), where=scale > 0)
    return whole.select(range(n)), cosines.max(axis=1)


class _Progress:
    """Every tenth of the columns as a line of the Job's log."""

    def __init__(self) -> None:
        self._tenths = 0

    def __call__(self, done: int, size: int) -> None:
        tenths = 10 * done // size
        if tenths > self._tenths:
            self._tenths = tenths
            _LOG.info("aggregating: %d of %d columns", done, size)


def _norm(tensors: Named) -> float:
    return float(np.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values())))
