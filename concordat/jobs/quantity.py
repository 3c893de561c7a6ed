"""Kubernetes quantities: the API server rewrites `1000m` to `1`, so they are compared by value."""

from __future__ import annotations

import re
from fractions import Fraction

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
_FACTORS = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    **{unit: Fraction(1000**power) for power, unit in enumerate("kMGT", 1)},
    **{f"{unit}i": Fraction(1024**power) for power, unit in enumerate("KMGT", 1)},
}


def value(quantity: str) -> Fraction:
    """Return the value of a quantity such as `500m`, `2` or `512Mi`; raises ValueError for any other form."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity such as 500m, 2 or 512Mi")
    return Fraction(match[1]) * _FACTORS[match[2] or ""]
