"""Accuracy as integers in parts per million, with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

MILLION = 1_000_000


@dataclass(frozen=True)
class Accuracy:
    """A proportion and its interval, in parts per million; low ≤ ppm ≤ high."""

    ppm: int
    low_ppm: int
    high_ppm: int


def ppm(correct: int, examples: int) -> int:
    """correct / examples in parts per million, rounded. `examples` is at least 1."""
    return round(correct * MILLION / examples)


def wilson(correct: int, examples: int, confidence_ppm: int) -> Accuracy:
    """Return the Wilson score interval of correct / examples, ends rounded outwards.

    It stays within 0..1 and holds its level at the few hundred examples a site has (E. B. Wilson, 1927).
    """
    if not 0 <= correct <= examples or examples < 1:
        raise ValueError(f"correct is {correct} of {examples} examples; it must be between 0 and examples, at least 1")
    if not 0 < confidence_ppm < MILLION:
        raise ValueError(f"confidence_ppm is {confidence_ppm}; it must be between 1 and 999999")
    z = NormalDist().inv_cdf(0.5 + confidence_ppm / MILLION / 2)
    share = correct / examples
    centre = share + z * z / (2 * examples)
    half = z * math.sqrt(share * (1 - share) / examples + z * z / (4 * examples * examples))
    scale = MILLION / (1 + z * z / examples)
    point = ppm(correct, examples)
    return Accuracy(
        ppm=point,
        low_ppm=max(0, min(point, math.floor((centre - half) * scale))),
        high_ppm=min(MILLION, max(point, math.ceil((centre + half) * scale))),
    )
