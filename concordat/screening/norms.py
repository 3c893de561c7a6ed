"""Norms: the limits of the contract, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from concordat.api.conditions import Reason
from concordat.screening.errors import ScreeningError
from concordat.tensors import shown

NORM_TOLERANCE = 1e-3
"""Relative slack of the norm check: the site rounds what it clipped to float32."""
_LARGEST = 999_999


@dataclass(frozen=True)
class Limits:
    """The largest norms (Frobenius, of the change of the weights) that the contract allows."""

    clip_norm: float
    """screening.clipNorm: over all modules."""
    module_clip_norm: float | None
    """screening.moduleClipNorm: of each module by itself; None: not bounded."""


def check_norms(norms: Mapping[str, float], limits: Limits) -> float:
    """Check the norm of the weight change of each module, by module name; returns the total norm.

    Both limits have a relative slack of 1e-3. Raises ScreeningError: NOT_FINITE, or NORM_EXCEEDED with the total. A
    norm that is too large is refused, never clipped: clipped by the hub, a backdoor scaled tenfold becomes one of
    ordinary size.
    """
    for module, norm in sorted(norms.items()):
        if not math.isfinite(norm):
            raise ScreeningError(
                Reason.NOT_FINITE, f"the weight change of {shown(module)} is not finite; the site must train again"
            )
    total = math.hypot(*norms.values())
    _check_limit("the norm of the weight change", total, "clipNorm", limits.clip_norm, total)
    if limits.module_clip_norm is not None and norms:
        worst = max(sorted(norms), key=norms.__getitem__)
        what = f"the norm of the weight change of {shown(worst)}"
        _check_limit(what, norms[worst], "moduleClipNorm", limits.module_clip_norm, total)
    return total


def decimal(value: float) -> str:
    """Return a norm as a decimal string of the API: at most four decimals, capped at 999999."""
    if not value < _LARGEST:
        return str(_LARGEST)
    return f"{value:.4f}".rstrip("0").rstrip(".")


def numbers_wire(numbers: Mapping[str, float]) -> dict[str, str]:
    """Measurements as decimal strings of the API, by name: as `decimal`, but of either sign."""
    return {name: signed(numbers[name]) for name in sorted(numbers)}


def signed(value: float) -> str:
    """Return a number of either sign as a decimal string: four decimals at most, within ±999999, no negative zero."""
    text = decimal(abs(value))
    return f"-{text}" if value < 0 and text != "0" else text


def _check_limit(what: str, norm: float, field: str, limit: float, total: float) -> None:
    if norm > limit * (1 + NORM_TOLERANCE):
        raise ScreeningError(
            Reason.NORM_EXCEEDED,
            f"{what} is {decimal(norm)}, screening.{field} of the contract is {decimal(limit)}; the site must clip "
            "before it signs",
            total,
        )
