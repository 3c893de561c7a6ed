"""Both factors trained: norms, inner products and distances of weight changes, without making a d × k matrix.

Site i changed its module by D_i = s(B_i·A_i − B_0·A_0), B_i = B_0 + ΔB_i and A_i = A_0 + ΔA_i. Everything here is made
from D_i / s = B_0·ΔA_i + ΔB_i·A_i, which does not cancel where the deltas are small, in float64. The weight change
decides, not the factors: (B_0·G, G⁻¹·A_0) is the parent, and is as far from it as rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, Module
from concordat.lora.deltas import Matrix, both_deltas, mean_partner, side_by_side, stacked
from concordat.tensors import Named


def product_norms(delta: Named, parent: Adapter) -> dict[str, float]:
    """‖D‖_F by module name, of an update of both factors. That of the adapter is math.hypot of them all.

    Raises LoraError for other tensors or shapes, or a value that is not finite.
    """
    updates, one = both_deltas([delta], parent), np.ones(1)
    return {name: module.scale * _mean_norm(module, updates, one) for name, module in parent.modules.items()}


def product_gram(updates: Sequence[Named], parent: Adapter) -> tuple[Matrix, Matrix]:
    """(inner, distances2) of updates of both factors, each (n, n): ⟨D_i, D_j⟩ and ‖D_i − D_j‖², over all modules.

    Only r × r products: ⟨L·R, L'·R'⟩ = Σ (LᵀL')∘(R·R'ᵀ). Raises LoraError as product_norms does.
    """
    both_deltas(updates, parent)
    inner = sum((_inner(module, updates) for module in parent.modules.values()), np.zeros((len(updates),) * 2))
    # Distances are the same from anywhere. Seen from an update in the middle the terms are no larger than the
    # distances, so that little cancels; an outlier does not move that update as it would the mean.
    centre = int(np.median(_distances2(inner), axis=1).argmin())
    seen = sum((_inner(module, updates, centre) for module in parent.modules.values()), np.zeros_like(inner))
    return inner, _distances2(seen)


def product_norm(left: Matrix, right: Matrix) -> float:
    """‖left·rightᵀ‖_F of (d, R) and (k, R)."""
    r_left, r_right = (np.asarray(np.linalg.qr(side, mode="r")) for side in (left, right))
    return float(np.linalg.norm(r_left @ r_right.T))


def share(part: float, whole: float) -> float:
    """part / whole; nothing of nothing is 0, something of nothing is infinite."""
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else math.inf


def _mean_norm(module: Module, updates: Sequence[Named], weights: Matrix) -> float:
    """‖Σ w_i·D_i‖_F / s."""
    b, a = stacked(updates, module, Factor.B), stacked(updates, module, Factor.A)
    return product_norm(side_by_side(b), side_by_side(mean_partner(a, weights)))


def _inner(module: Module, updates: Sequence[Named], centre: int | None = None) -> Matrix:
    """⟨D_i, D_j⟩, (n, n), of one module; with a centre, of the changes from that update instead of the parent."""
    b, a = stacked(updates, module, Factor.B), stacked(updates, module, Factor.A)
    if centre is not None:
        for factor in (b, a):
            middle = factor[1 + centre].copy()
            factor[1:] -= middle
            factor[0] += middle
    p, q = _block_gram(b), _block_gram(a)
    # D_i = B_0·ΔA_i + ΔB_i·A_i with A_i = A_0 + ΔA_i: two terms each, four products.
    change, mixed = q[1:, 1:], q[1:, :1] + q[1:, 1:]
    whole = q[0, 0] + q[:1, 1:] + mixed
    inner = np.einsum("ab,ijab->ij", p[0, 0], change) + np.einsum("ijab,ijab->ij", p[1:, 1:], whole)
    inner += 2 * np.einsum("jab,ijab->ij", p[0, 1:], mixed)
    # The two cross terms are each other's transpose: half of the sum has both.
    return np.asarray(module.scale**2 * (inner + inner.T) / 2)


def _block_gram(factors: Matrix) -> Matrix:
    """F_iᵀF_j as (m, m, r, r), of (m, rows, r)."""
    m, _, rank = factors.shape
    columns = side_by_side(factors)
    return (columns.T @ columns).reshape(m, rank, m, rank).transpose(0, 2, 1, 3)


def _distances2(inner: Matrix) -> Matrix:
    squares = inner.diagonal()
    distances2 = np.maximum(squares[:, None] + squares[None, :] - 2 * inner, 0.0)
    np.fill_diagonal(distances2, 0.0)
    return distances2
