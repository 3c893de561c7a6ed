"""Pre-aggregation, what is done to the updates before the rule: a matrix (n, n) or factors (n,) for n rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.geometry import Matrix

Weights = NDArray[np.float64]


def nnm(distances2: Matrix, max_faulty: int) -> Matrix:
    """(n, n): each update becomes the mean of the n − f nearest to it, itself included.

    Nearest-neighbour mixing (Allouah et al., AISTATS 2023). Ties go to the earlier update.
    """
    n = len(distances2)
    ranked = distances2.copy()
    np.fill_diagonal(ranked, -1)
    nearest = np.argsort(ranked, axis=1, kind="stable")[:, : n - max_faulty]
    mix = np.zeros((n, n))
    np.put_along_axis(mix, nearest, 1 / (n - max_faulty), axis=1)
    return mix


def arc(norms: Weights, max_faulty: int) -> Weights:
    """(n,): factors that clip the floor(2 (f/n) (n − f)) largest norms to the next one.

    Adaptive robust clipping (Allouah et al., ICLR 2025).
    """
    n = len(norms)
    clipped = 2 * max_faulty * (n - max_faulty) // n
    bound = np.sort(norms)[n - clipped - 1]
    return np.asarray(np.minimum(1, np.divide(bound, norms, out=np.ones_like(norms), where=norms > 0)))
