"""What a site does before it signs: scale an update down until the weight change is no longer than the contract allows.

The hub measures the same norms and rejects what is longer; it never clips (aggregation of what was clipped at the hub
lets a scaled backdoor pass for an ordinary update).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, trained_factors
from concordat.lora.products import product_norms
from concordat.lora.whitening import Whitening
from concordat.tensors import Named, Tensors

_HALVINGS = 40
"""Of the interval in which the scale is looked for: a share of 1e-12 is below what float32 tells apart."""


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The largest weight change of a round, over all modules and, if it is bounded, of each."""

    parent: Adapter
    factor: Factor
    total: float
    module: float | None = None

    def norms(self, delta: Named) -> dict[str, float]:
        """Frobenius norm of the weight change by module. Raises LoraError."""
        return self._whitening.norms(delta) if self._whitening is not None else product_norms(delta, self.parent)

    def clip(self, delta: Named) -> tuple[Tensors, float, bool]:
        """Return the update within the ceiling, the norm of its weight change, and whether it had to be cut.

        Raises LoraError for other tensors than the parent's, or if training this factor can change nothing; an update
        with a value that is not finite has to be refused before.
        """
        norms = self.norms(delta)
        shares = dict.fromkeys(norms, 1.0)
        if self.module is not None:
            for name in (name for name, norm in norms.items() if norm > self.module):
                shares[name] = self._share(partial(self._scaled_norm, delta, {name: 1.0}), self.module)
        within = self._scaled_norm(delta, shares, 1.0)
        if within > self.total:
            share = self._share(partial(self._scaled_norm, delta, shares), self.total)
            shares = {name: share * own for name, own in shares.items()}
        out = _scaled(delta, self.parent, self.factor, shares)
        return out, math.hypot(*self.norms(out).values()), any(share < 1 for share in shares.values())

    @cached_property
    def _whitening(self) -> Whitening | None:
        return None if self.factor is Factor.BOTH else Whitening.of(self.parent, self.factor)

    def _scaled_norm(self, delta: Named, shares: Mapping[str, float], share: float) -> float:
        """Return the norm of these modules alone, each scaled by its share, times `share`."""
        part = Adapter({name: self.parent.modules[name] for name in shares})
        scaled = _scaled(delta, part, self.factor, {name: share * own for name, own in shares.items()})
        if self._whitening is not None:
            return math.hypot(*replace(self._whitening, parent=part).norms(scaled).values())
        return math.hypot(*product_norms(scaled, part).values())

    def _share(self, norm: Callable[[float], float], limit: float) -> float:
        """Return a scale at which the norm is at most the limit: exact where the norm is linear, else by halving."""
        if self.factor is not Factor.BOTH:
            return limit / norm(1.0)
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if norm(middle) <= limit else (low, middle)
        return low


def _scaled(delta: Named, modules: Adapter, factor: Factor, shares: Mapping[str, float]) -> Tensors:
    """In float64: for a huge norm the share itself would lose its digits as a float32."""
    out: Tensors = {}
    for name, module in modules.modules.items():
        for trained in trained_factors(factor):
            tensor = delta[module.tensor_name(trained)]
            scaled = tensor if shares[name] == 1.0 else np.multiply(tensor, shares[name], dtype=np.float64)
            out[module.tensor_name(trained)] = np.array(scaled, dtype=np.float32)
    return out
