"""Updates against the parent: their tensors, and those of sites that train fewer components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, LoraError, Module, Named, trained_factors
from concordat.tensors import Tensors, shown

Matrix = NDArray[np.float64]


def check_names(delta: Named, parent: Adapter, factor: Factor) -> None:
    """Raises LoraError unless the delta names exactly the parent's tensors of the trained factor."""
    wanted = {module.tensor_name(f) for module in parent.modules.values() for f in trained_factors(factor)}
    absent, foreign = sorted(wanted - delta.keys()), sorted(delta.keys() - wanted)
    if absent or foreign:
        raise LoraError(
            f"the update must have the {len(wanted)} tensors of factor {factor.value}; "
            f"missing: {shown(absent[0]) if absent else 'none'}; foreign: {shown(foreign[0]) if foreign else 'none'}"
        )


def check_delta(delta: Named, parent: Adapter, factor: Factor) -> None:
    """Raises LoraError unless the delta has the parent's tensors of the trained factor, in the parent's shapes."""
    check_names(delta, parent, factor)
    for module in parent.modules.values():
        for f in trained_factors(factor):
            found, wanted = delta[module.tensor_name(f)].shape, module.factor(f).shape
            if found != wanted:
                raise LoraError(
                    f"{shown(module.tensor_name(f))} has shape {list(found)}, the parent's has {list(wanted)}; "
                    "pad the update of a site of lower rank first"
                )


def pad(delta: Named, parent: Adapter, factor: Factor) -> Tensors:
    """The update of a site that trained the first components only, with zeros for the components it left as they were.

    A site of rank q < r trains the first q rows of A, the first q columns of B, and keeps the rest of the parent in
    its frozen weights. parent + pad(delta) then is what the site trained, exactly. Raises LoraError if a slice does
    not fit the parent.
    """
    check_names(delta, parent, factor)
    return {
        name: _padded(name, delta[name], module.factor(f), f)
        for module in parent.modules.values()
        for f in trained_factors(factor)
        for name in [module.tensor_name(f)]
    }


def both_deltas(updates: Sequence[Named], parent: Adapter) -> Sequence[Named]:
    """The updates, checked. Raises LoraError for none, another shape or a value that is not finite; says which one."""
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


def _padded(name: str, tensor: NDArray[Any], wanted: NDArray[Any], factor: Factor) -> NDArray[np.float32]:
    axis = 0 if factor is Factor.A else 1
    if tensor.ndim != 2 or tensor.shape[1 - axis] != wanted.shape[1 - axis]:
        raise LoraError(
            f"{shown(name)} has shape {list(tensor.shape)}, which is no slice of the parent's {list(wanted.shape)}"
        )
    rank, limit = tensor.shape[axis], wanted.shape[axis]
    if rank > limit:
        raise LoraError(
            f"{shown(name)} has rank {rank}, above the contract's {limit}; train at most {limit} components"
        )
    out = np.zeros(wanted.shape, np.float32)
    out[(slice(rank), slice(None)) if factor is Factor.A else (slice(None), slice(rank))] = tensor
    return out
