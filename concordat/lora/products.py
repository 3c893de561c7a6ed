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
from concordat.lora.adapter import Adapter, LoraError, Module
from concordat.lora.deltas import Matrix, both_deltas, mean_partner, side_by_side, stacked
from concordat.tensors import Named, Tensors

COVARIANCE_LIMIT = 0.05
"""Largest error of a mean of factors, as a share of the norm of the mean weight change."""


class CovarianceTooLarge(LoraError):
    """The mean of the factors is too far from the mean of the weight changes. `error` is how far."""

    def __init__(self, error: float, module: str) -> None:
        super().__init__(
            f"averaging both factors would miss {error:.1%} of the mean weight change, most of it in {module}; at most "
            f"{COVARIANCE_LIMIT:.0%} is accepted: use aggregation.lora Alternating or Svd, or train for fewer steps"
        )
        self.error = error


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


def factor_mean(updates: Sequence[Named], weights: Sequence[float], parent: Adapter) -> tuple[Tensors, float]:
    """Return the adapter (A_0 + Σ w_i·ΔA_i, B_0 + Σ w_i·ΔB_i), and its error as a share of ‖Σ w_i·D_i‖_F over all
    modules.

    The error is the covariance of the factors: Σ w_i·D_i less what the result changes is
    s·Σ w_i(ΔB_i − b)(ΔA_i − a), b and a the weighted means, if the weights sum to 1. Raises LoraError as product_norms
    does, CovarianceTooLarge if the error is above COVARIANCE_LIMIT.
    """
    both_deltas(updates, parent)
    w = np.asarray(weights, dtype=np.float64)
    out: Tensors = {}
    errors, changes = {}, {}
    for name, module in parent.modules.items():
        b, a = stacked(updates, module, Factor.B), stacked(updates, module, Factor.A)
        mean_b, mean_a = np.tensordot(w, b[1:], 1), np.tensordot(w, a[1:], 1)
        out[module.tensor_name(Factor.A)] = (a[0] + mean_a).T.astype(np.float32)
        out[module.tensor_name(Factor.B)] = (b[0] + mean_b).astype(np.float32)
        left = np.concatenate([b[1:] - mean_b, mean_b[None]])
        right = np.concatenate([(a[1:] - mean_a) * w[:, None, None], (1 - w.sum()) * mean_a[None]])
        errors[name] = module.scale * product_norm(side_by_side(left), side_by_side(right))
        changes[name] = module.scale * _mean_norm(module, updates, w)
    error = share(math.hypot(*errors.values()), math.hypot(*changes.values()))
    if error > COVARIANCE_LIMIT:
        raise CovarianceTooLarge(error, max(errors, key=errors.__getitem__))
    return out, error


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
