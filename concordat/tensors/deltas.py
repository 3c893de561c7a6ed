"""Differences between two adapters: taking one, checking its form, and padding one of a lower rank.

Tensors have peft's names: `….lora_A.weight` is factor A, (r, k); `….lora_B.weight` is factor B, (d, r).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.tensors.files import FormError, TensorError, Tensors, shown

Named = Mapping[str, NDArray[Any]]


class NotFiniteError(TensorError):
    """A tensor has a value that is infinite or not a number."""


def factor_names(names: Iterable[str], factor: Factor) -> list[str]:
    """Return the tensors of one LoRA factor, or of both, by peft's naming, sorted."""
    factors = (Factor.A, Factor.B) if factor is Factor.BOTH else (factor,)
    return sorted(name for name in names if any(f".lora_{f.value}." in name for f in factors))


def difference(candidate: Named, parent: Named, factor: Factor) -> Tensors:
    """Return candidate − parent on the trained factor, in float32.

    Raises FormError if the tensor sets or shapes differ, or if anything but the trained factor moved. The values
    may be infinite or not a number; `concordat.lora.Ceiling` refuses those.
    """
    check_names(candidate, parent)
    trained = set(factor_names(parent, factor))
    for name, old in parent.items():
        _check_shape(name, candidate[name], old)
        if name not in trained and not np.array_equal(candidate[name], old):
            raise FormError(f"{shown(name)} changed, but the contract trains only factor {factor.value}")
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(candidate[name] - parent[name], dtype=np.float32) for name in sorted(trained)}


def check_schema(delta: Named, parent: Named, factor: Factor) -> None:
    """Check the form of a submitted delta: exact tensor set, shapes (hence the rank), float32, finite values.

    The set is that of the trained factor, so a delta cannot move the frozen one. Raises FormError, NotFiniteError.
    """
    expected = factor_names(parent, factor)
    check_names(delta, expected)
    for name in expected:
        _check_shape(name, delta[name], parent[name])
        if delta[name].dtype != np.float32:
            raise FormError(f"{shown(name)} has dtype {delta[name].dtype}, expected float32")
    for name in expected:
        if not np.isfinite(delta[name]).all():
            raise NotFiniteError(f"{shown(name)} has a value that is not finite")


def pad(delta: Named, parent: Named, factor: Factor) -> Tensors:
    """Return the update of a site that trained the first components only, with zeros for the others; one of the whole
    rank as it is.

    A site of rank q < r trains the first q rows of A, the first q columns of B, and keeps the rest of the parent in
    its frozen weights. parent + pad(delta) then is what the site trained, exactly. Raises FormError if a slice does
    not fit the parent.
    """
    expected = factor_names(parent, factor)
    check_names(delta, expected)
    return {name: _padded(name, delta[name], parent[name]) for name in expected}


def check_names(names: Iterable[str], expected: Iterable[str]) -> None:
    """Raises FormError unless the two are the same set; the message counts, and names the first that differ."""
    names, expected = set(names), set(expected)
    if names != expected:
        absent = ", ".join(shown(n) for n in sorted(expected - names)[:3])
        foreign = ", ".join(shown(n) for n in sorted(names - expected)[:3])
        raise FormError(
            f"{len(names)} tensors, expected {len(expected)}; missing: {absent or 'none'}; foreign: {foreign or 'none'}"
        )


def _check_shape(name: str, tensor: NDArray[Any], parent: NDArray[Any]) -> None:
    if tensor.shape != parent.shape:
        raise FormError(f"{shown(name)} has shape {list(tensor.shape)}, the parent's has {list(parent.shape)}")


def _padded(name: str, tensor: NDArray[Any], parent: NDArray[Any]) -> NDArray[np.float32]:
    axis = 0 if factor_names([name], Factor.A) else 1
    if tensor.ndim != 2 or tensor.shape[1 - axis] != parent.shape[1 - axis]:
        raise FormError(
            f"{shown(name)} has shape {list(tensor.shape)}, which is no slice of the parent's {list(parent.shape)}"
        )
    rank, limit = tensor.shape[axis], parent.shape[axis]
    if rank > limit:
        raise FormError(
            f"{shown(name)} has rank {rank}, above the contract's {limit}; train at most {limit} components"
        )
    if rank == limit:
        return tensor
    out = np.zeros(parent.shape, np.float32)
    out[(slice(rank), slice(None)) if axis == 0 else (slice(None), slice(rank))] = tensor
    return out
