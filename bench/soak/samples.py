"""Whether something grows: samples by round, and their slope with its confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Slope:
    """A straight line through samples: its slope, and the half width of its 95 % confidence interval."""

    per_hundred: float
    uncertainty: float
    mean: float

    @property
    def flat(self) -> bool:
        """Return whether growth is not shown, or is below 1 % of the mean per 100 rounds."""
        low = self.per_hundred - self.uncertainty
        return low <= 0 or self.per_hundred < 0.01 * self.mean


def slope(rounds: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Return the least-squares slope per 100 rounds; None of fewer than four samples."""
    count = len(rounds)
    if count < 4:
        return None
    x, y = fmean(rounds), fmean(values)
    spread = sum((r - x) ** 2 for r in rounds)
    gradient = sum((r - x) * (v - y) for r, v in zip(rounds, values, strict=True)) / spread
    rest = sum((v - y - gradient * (r - x)) ** 2 for r, v in zip(rounds, values, strict=True))
    error = math.sqrt(rest / (count - 2) / spread)
    return Slope(100 * gradient, 100 * error * _student(count - 2), y)


def _student(freedom: int) -> float:
    """Return Student's quantile, by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
