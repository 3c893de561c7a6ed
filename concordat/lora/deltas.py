"""Updates against the parent, module by module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, LoraError, Module, trained_factors
from concordat.tensors import FormError, Named, check_names, factor_names, shown

Matrix = NDArray[np.float64]


def check_delta(delta: Named, parent: Adapter, factor: Factor) -> None:
    """Raises LoraError unless the delta has the parent's tensors of the trained factor, in the parent's shapes."""
    try:
        check_names(delta, factor_names(parent.tensors(), factor))
    except FormError as error:
        raise LoraError(f"the update must have the parent's tensors of factor {factor.value}: {error}") from error
    for module in parent.modules.values():
        for f in trained_factors(factor):
            found, wanted = delta[module.tensor_name(f)].shape, module.factor(f).shape
            if found != wanted:
                raise LoraError(
                    f"{shown(module.tensor_name(f))} has shape {list(found)}, the parent's has {list(wanted)}; "
                    "pad the update of a site of lower rank first"
                )


def both_deltas(updates: Sequence[Named], parent: Adapter) -> Sequence[Named]:
    """Return the updates, checked.

    Raises LoraError for none, another shape or a value that is not finite; says which one.
    """
    if not updates:
        raise LoraError("there is no update to average")
    for position, update in enumerate(updates):
        try:
            check_delta(update, parent, Factor.BOTH)
        except LoraError as error:
            raise LoraError(f"update {position}: {error}") from error
        for name, tensor in update.items():
            if not np.isfinite(tensor).all():
                raise LoraError(f"update {position}: {shown(name)} has a value that is not finite; reject the update")
    return updates


def stacked(updates: Sequence[Named], module: Module, factor: Factor) -> Matrix:
    """[F_0, ΔF_1, …, ΔF_n] of one module, (n + 1, d, r) for B and (n + 1, k, r), transposed, for A."""
    name = module.tensor_name(factor)
    tensors = [module.factor(factor), *(update[name] for update in updates)]
    return np.stack([np.asarray(t if factor is Factor.B else t.T, dtype=np.float64) for t in tensors])


def side_by_side(factors: Matrix) -> Matrix:
    """(rows, m·r) of (m, rows, r)."""
    return factors.transpose(1, 0, 2).reshape(factors.shape[1], -1)


def mean_partner(a: Matrix, weights: Matrix) -> Matrix:
    """[Σ w_i·ΔA_i, w_1·A_1, …, w_n·A_n] of stacked A: with side_by_side, [B_0, ΔB_1, …]·partnerᵀ = Σ w_i·D_i / s."""
    w = weights[:, None, None]
    return np.concatenate([(w * a[1:]).sum(axis=0, keepdims=True), w * (a[0] + a[1:])])
