"""The form of an update: what changed between two adapters, and the check of a submitted delta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor
from concordat.screening.errors import ScreeningError
from concordat.screening.norms import Named
from concordat.tensors import Tensors, shown


def factor_names(names: Iterable[str], factor: Factor) -> list[str]:
    """The tensors of one LoRA factor, or of both, by peft's naming, sorted."""
    factors = (Factor.A, Factor.B) if factor is Factor.BOTH else (factor,)
    return sorted(name for name in names if any(f".lora_{f.value}." in name for f in factors))


def difference(candidate: Named, parent: Named, factor: Factor) -> Tensors:
    """candidate − parent on the trained factor, in float32.

    Raises ScreeningError if the tensor sets or shapes differ, or if anything but the trained factor moved. The values
    may be infinite or not a number; `concordat.lora.Ceiling` refuses those.
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


def check_schema(delta: Named, parent: Named, factor: Factor) -> None:
    """Check the form of a submitted delta: exact tensor set, shapes (hence the rank), float32, finite values.

    The set is that of the trained factor, so a delta cannot move the frozen one. Raises ScreeningError.
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
