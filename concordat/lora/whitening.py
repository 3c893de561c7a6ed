"""Coordinates in which an update of one factor is as long as the weight change it makes.

While A is fixed, ΔW = s·ΔB·A, and x = s·ΔB·(AAᵀ)^½ has ⟨x, y⟩ = ⟨ΔW_x, ΔW_y⟩ (Frobenius); while B is fixed the same
holds for x = s·(BᵀB)^½·ΔA. A cap on ‖x‖ then caps the change itself, whatever the scale of the fixed factor, and an
average of x is the average of the weight changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, LoraError, Module
from concordat.lora.deltas import Matrix, check_delta
from concordat.tensors import Named, Tensors

_RANK_CUT = 1e-12
"""Eigenvalues below this share of the largest are zero: a float32 factor has no more digits (1e-6 of its length)."""
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class Whitening:
    """The coordinates of one round: they belong to its parent and its trained factor, A or B."""

    parent: Adapter
    factor: Factor
    _maps: dict[str, tuple[Matrix, Matrix]]
    """By module name: s·G^½ and its pseudo-inverse, (r, r), with G = AAᵀ or BᵀB of the fixed factor."""

    @classmethod
    def of(cls, parent: Adapter, factor: Factor) -> Self:
        """Raises LoraError if no update of the factor could change anything, and for Factor.BOTH."""
        if factor is Factor.BOTH:
            raise LoraError("factor is Both; whitening needs a fixed factor, use product_norms and product_gram")
        fixed = Factor.B if factor is Factor.A else Factor.A
        if not any(module.factor(fixed).any() for module in parent.modules.values()):
            raise LoraError(
                f"training factor {factor.value} changes nothing while {fixed.value} is zero in every module; "
                f"set recipe.trainFactor to {fixed.value}"
            )
        return cls(parent, factor, {name: _maps(module, fixed) for name, module in parent.modules.items()})

    def whiten(self, delta: Named) -> Tensors:
        """x of the delta, in the names and shapes of the factor's tensors. Raises LoraError for other tensors."""
        return self.measure(delta)[0]

    def measure(self, delta: Named) -> tuple[Tensors, dict[str, float]]:
        """Return what `whiten` and `norms` do, in one pass."""
        check_delta(delta, self.parent, self.factor)
        norms: dict[str, float] = {}
        return self._mapped(delta, 0, norms), norms

    def unwhiten(self, x: Named) -> Tensors:
        """Return the shortest delta with the weight change of x.

        What the fixed factor maps to nothing is dropped: it could not be judged now, and would act in a later round.
        Raises LoraError for other tensors.
        """
        check_delta(x, self.parent, self.factor)
        return self._mapped(x, 1)

    def nearest(self, later: Named, earlier: Named) -> Tensors:
        """x of the update that comes nearest the weight change from `earlier` to `later`: its projection on what this
        round can make. Both are adapters in the parent's shapes, each in any gauge.
        """
        projected = {}
        for module in self.parent.modules.values():
            a, b = module.tensor_name(Factor.A), module.tensor_name(Factor.B)
            now, before = (_onto_fixed(module, self.factor, made[a], made[b]) for made in (later, earlier))
            projected[module.tensor_name(self.factor)] = module.scale**2 * (now - before)
        return self._mapped(projected, 1)

    def norms(self, delta: Named) -> dict[str, float]:
        """‖ΔW‖_F by module name; not finite where a value is not. That of the adapter is math.hypot of them all.

        Raises LoraError for other tensors.
        """
        check_delta(delta, self.parent, self.factor)
        return {
            name: self._norm(delta[module.tensor_name(self.factor)], name)
            for name, module in self.parent.modules.items()
        }

    def _mapped(self, tensors: Named, which: int, norms: dict[str, float] | None = None) -> Tensors:
        """Return the tensors times one of the maps; `norms` receives those of the result, by module name."""
        out = {}
        for name, module in self.parent.modules.items():
            tensor = tensors[module.tensor_name(self.factor)]
            mapped = np.empty(tensor.shape, np.float32)
            target, begin, squares = self._rows(mapped), 0, 0.0
            with np.errstate(over="ignore", invalid="ignore"):
                for block in self._blocks(tensor, self._maps[name][which]):
                    target[begin : begin + len(block)] = block
                    begin += len(block)
                    squares += _square(block)
            out[module.tensor_name(self.factor)] = mapped
            if norms is not None:
                norms[name] = math.sqrt(squares)
        return out

    def _norm(self, tensor: NDArray[Any], name: str) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            return math.sqrt(sum(_square(block) for block in self._blocks(tensor, self._maps[name][0])))

    def _blocks(self, tensor: NDArray[Any], root: Matrix) -> Iterator[Matrix]:
        """Yield the tensor's rows times the map, in blocks, so that the float64 copy stays small."""
        rows, step = self._rows(tensor), max(1, _BLOCK // len(root))
        for i in range(0, len(rows), step):
            yield rows[i : i + step].astype(np.float64) @ root

    def _rows(self, tensor: NDArray[Any]) -> NDArray[Any]:
        """Return a view whose rows are r long; the maps are symmetric, so that they apply from the right for both
        factors.
        """
        return tensor if self.factor is Factor.B else tensor.T


def _maps(module: Module, fixed: Factor) -> tuple[Matrix, Matrix]:
    rows = module.factor(fixed).astype(np.float64)
    values, vectors = np.linalg.eigh(rows @ rows.T if fixed is Factor.A else rows.T @ rows)
    roots = module.scale * np.sqrt(np.maximum(values, 0.0))
    kept = values > _RANK_CUT * values[-1]
    inverses = np.divide(1.0, roots, out=np.zeros_like(roots), where=kept & (roots > 0))
    return (vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T


def _onto_fixed(module: Module, trained: Factor, a: NDArray[Any], b: NDArray[Any]) -> Matrix:
    """Return b·a·Aᵀ or Bᵀ·b·a, in float64, with the module's fixed factor."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if trained is Factor.B:
        return np.asarray(b @ (a @ module.a.T.astype(np.float64)))
    return np.asarray((module.b.T.astype(np.float64) @ b) @ a)


def _square(block: Matrix) -> float:
    return float(np.vdot(block, block))
