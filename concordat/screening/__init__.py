"""What is sent and what is refused: difference, norm, clipping, and the check of a submitted delta."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor
from concordat.artifacts.tensors import Tensors, shown

Named = Mapping[str, NDArray[Any]]

NORM_TOLERANCE = 1e-3
"""Relative slack of the norm check: the site rounds what it clipped to float32."""
_BLOCK = 1 << 16

__all__ = [
    "NORM_TOLERANCE",
    "Reason",
    "ScreeningError",
    "Tensors",
    "check_delta",
    "clip",
    "decimal",
    "difference",
    "factor_names",
    "total_norm",
]


class ScreeningError(Exception):
    """An update that must not be aggregated. `norm` is its norm where it could be computed."""

    def __init__(self, reason: Reason, message: str, norm: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.norm = norm


def factor_names(names: Iterable[str], factor: Factor) -> list[str]:
    """The tensors of one LoRA factor, by peft's naming, sorted."""
    return sorted(name for name in names if f".lora_{factor.value}." in name)


def difference(candidate: Named, parent: Named, factor: Factor) -> Tensors:
    """candidate − parent on the trained factor, in float32.

    Raises ScreeningError if the tensor sets or shapes differ, or if anything but the trained factor moved. The values
    may be infinite or not a number; `clip` refuses those.
    """
    _check_names(candidate, parent)
    trained = set(factor_names(parent, factor))
    for name, old in parent.items():
        _check_shape(name, candidate[name], old)
        if name not in trained and not np.array_equal(candidate[name], old):
            raise ScreeningError(
                Reason.SCHEMA_MISMATCH, f"{shown(name)} changed, but the contract trains only factor {factor.value}"
            )
    with np.errstate(over="ignore", invalid="ignore"):
        return {name: np.asarray(candidate[name] - parent[name], dtype=np.float32) for name in sorted(trained)}


def total_norm(delta: Named) -> float:
    """Frobenius norm over all tensors, accumulated in float64; not finite if a value is not."""
    return math.sqrt(sum(_square_sum(delta[name]) for name in sorted(delta)))


def clip(delta: Named, norm: float) -> tuple[Tensors, float, bool]:
    """Scale the delta so that its total norm is at most `norm`; returns (delta, norm before, whether it was cut).

    Raises ScreeningError if a value is not finite.
    """
    before = total_norm(delta)
    if not math.isfinite(before):
        raise ScreeningError(Reason.NOT_FINITE, "the update has a value that is not finite; nothing can be clipped")
    if before <= norm:
        return {name: np.array(t, dtype=np.float32) for name, t in delta.items()}, before, False
    # In float64: for a huge norm the factor itself would lose its digits as a float32.
    scale = norm / before
    return {name: np.multiply(t, scale, dtype=np.float64).astype(np.float32) for name, t in delta.items()}, before, True


def check_delta(delta: Named, parent: Named, factor: Factor, clip_norm: float) -> float:
    """Check a submitted delta against the contract; returns its norm.

    In this order: exact tensor set, shapes, float32, finite values, norm ≤ C(1 + 1e-3). Raises ScreeningError. A norm
    that is too large is refused, never clipped: clipping at the hub would turn a caught attack into a harmless-looking
    update.
    """
    wanted = factor_names(parent, factor)
    _check_names(delta, wanted)
    for name in wanted:
        _check_shape(name, delta[name], parent[name])
        if delta[name].dtype != np.float32:
            raise ScreeningError(
                Reason.SCHEMA_MISMATCH, f"{shown(name)} has dtype {delta[name].dtype}, expected float32"
            )
    for name in wanted:
        if not np.isfinite(delta[name]).all():
            raise ScreeningError(Reason.NOT_FINITE, f"{shown(name)} has a value that is not finite")
    norm = total_norm(delta)
    if norm > clip_norm * (1 + NORM_TOLERANCE):
        raise ScreeningError(
            Reason.NORM_EXCEEDED,
            f"the norm is {decimal(norm)}, screening.clipNorm of the contract is {decimal(clip_norm)}",
            norm,
        )
    return norm


def decimal(value: float) -> str:
    """A norm as a decimal string of the API: at most four decimals, capped at 999999."""
    if not value < 999_999:
        return "999999"
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _check_names(found: Iterable[str], wanted: Iterable[str]) -> None:
    found, wanted = set(found), set(wanted)
    if found != wanted:
        absent = ", ".join(shown(n) for n in sorted(wanted - found)[:3])
        foreign = ", ".join(shown(n) for n in sorted(found - wanted)[:3])
        raise ScreeningError(
            Reason.SCHEMA_MISMATCH,
            f"{len(found)} tensors, expected {len(wanted)}; missing: {absent or 'none'}; foreign: {foreign or 'none'}",
        )


def _check_shape(name: str, tensor: NDArray[Any], parent: NDArray[Any]) -> None:
    if tensor.shape != parent.shape:
        raise ScreeningError(
            Reason.SCHEMA_MISMATCH,
            f"{shown(name)} has shape {list(tensor.shape)}, the parent's has {list(parent.shape)}",
        )


def _square_sum(tensor: NDArray[Any]) -> float:
    # In blocks, so that the float64 copy stays small.
    flat = tensor.reshape(-1)
    blocks = (flat[i : i + _BLOCK].astype(np.float64) for i in range(0, flat.size, _BLOCK))
    return math.fsum(float(np.square(block).sum()) for block in blocks)
