"""The gauge of an adapter: which of all pairs of factors with the same product B·A it is written in.

A product says nothing of the gauge, but training does: a change of the weights along a direction that the fixed factor
scales by σ needs a change of the trained factor 1/σ as long. Where the fixed factor is orthonormal every direction
counts the same, and a bound on the weight change is a bound on the factor.
"""

from __future__ import annotations

import numpy as np

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, Module
from concordat.lora.deltas import Matrix
from concordat.tensors import Tensors


def orthonormal(adapter: Adapter, fixed: Factor) -> Tensors:
    """Return the adapter with every B·A as it is and factor `fixed` (A or B) orthonormal, in float32.

    With B·A = U·S·Vᵀ (thin, largest singular value first) B is U and A is S·Vᵀ, or B is U·S and A is Vᵀ. So the first
    q components are the best adapter of rank q (Eckart-Young). Where B·A has a lower rank than the adapter, the fixed
    factor is completed to an orthonormal one, so that every component can still learn; only a rank above the
    layer's own size leaves zeros in it. Equal inputs give equal bits on processors of one kind. A product too large for
    float32 gives values that are not finite.
    """
    tensors: Tensors = {}
    for module in adapter.modules.values():
        left, values, right = _decomposed(module)
        a, b = (right, left * values) if fixed is Factor.A else (right * values[:, None], left)
        with np.errstate(over="ignore"):
            tensors[module.tensor_name(Factor.A)] = a.astype(np.float32)
            tensors[module.tensor_name(Factor.B)] = b.astype(np.float32)
    return tensors


def _decomposed(module: Module) -> tuple[Matrix, Matrix, Matrix]:
    """U (d, r), S (r,) and Vᵀ (r, k) of B·A; the columns and rows beyond min(d, r) and min(k, r) are zero."""
    q_left, r_left = np.linalg.qr(module.b.astype(np.float64))
    q_right, r_right = np.linalg.qr(module.a.T.astype(np.float64))
    u, s, vt = np.linalg.svd(r_left @ r_right.T)
    left, values, right = np.zeros(module.b.shape), np.zeros(module.rank), np.zeros(module.a.shape)
    left[:, : len(u)], values[: len(s)], right[: len(vt)] = q_left @ u, s, vt @ q_right.T
    # A singular vector has no sign of its own: the largest value of a row of A is positive.
    signs = np.where(right[np.arange(len(right)), np.abs(right).argmax(axis=1)] < 0, -1.0, 1.0)
    return left * signs, values, right * signs[:, None]
