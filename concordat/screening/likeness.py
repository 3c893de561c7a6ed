"""Steps 5 and 6 of screening, as far as they ask for likeness: copies of another update, and of the last aggregate.

How alike honest updates are depends on their data: with much data of one kind their cosines tend to 1. So a copy is
what is far closer to its original than the round's other updates are to their nearest; no cosine by itself is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_COPY_GAP = 0.01
"""A gap is 1 − cosine. With a wider one, an update is no copy of another, however far apart the others are."""
MAX_REPLAY_GAP = 0.02
"""The same of the last aggregate sent back."""
COPY_SHARE = 0.1
"""Part of the usual gap below which a gap is a copy's: measured on honest sites with 80 to 100,000 examples of the same
data, none of which comes below, and on copies with 2 % of noise, most of which do."""
ROUNDING = 1e-6
"""Gaps below are those of one update in two scales: float32 rounds cosines at 1e-7."""


@dataclass(frozen=True)
class Likeness:
    """An update is a copy of another, or of the last aggregate."""

    of: int
    """Row of the original; of a replay, its own row."""
    gap: float
    """1 − cosine."""
    usual: float | None
    """The median gap of the others: to their nearest, or to the last aggregate. None where there are none."""


def copies(gaps: Floats) -> dict[int, Likeness]:
    """Return the rows of `gaps` (n, n), in the order of arrival, that are copies, each of an earlier one that is kept.

    One that is like a rejected copy only stays: what is kept then holds no two alike,
    which is all that counting a vote once takes, and nobody is lost through a chain of others.
    """
    apart = np.where(np.eye(len(gaps), dtype=bool), np.inf, gaps)
    nearest = apart.min(axis=1, initial=np.inf)
    found: dict[int, Likeness] = {}
    kept: list[int] = []
    for row in range(len(gaps)):
        original = min(kept, key=lambda other: (gaps[row, other], other), default=None)
        if original is not None:
            gap, usual = float(gaps[row, original]), _median(np.delete(nearest, [row, original]))
            if _alike(gap, usual, MAX_COPY_GAP):
                found[row] = Likeness(original, gap, usual)
                continue
        kept.append(row)
    return found


def replays(gaps: Floats) -> dict[int, Likeness]:
    """Return the rows of `gaps` (n,), to the last aggregate, that repeat it: far closer than the others are to it."""
    found: dict[int, Likeness] = {}
    for row, gap in enumerate(gaps.tolist()):
        usual = _median(np.delete(gaps, row))
        if _alike(gap, usual, MAX_REPLAY_GAP):
            found[row] = Likeness(row, gap, usual)
    return found


def _median(gaps: Floats) -> float | None:
    return float(np.median(gaps)) if len(gaps) else None


def _alike(gap: float, usual: float | None, most: float) -> bool:
    return gap < ROUNDING or (usual is not None and gap < most and gap < COPY_SHARE * usual)
