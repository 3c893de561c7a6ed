"""Rules whose result is a weighted sum of the updates: the weights, from how the updates lie to each other.

Every rule takes (gram, f) and gives (n,) float64. They cost nothing that grows with the size of an update.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.geometry import Gram, Matrix
from concordat.aggregation.rows import AggregationError
from concordat.api.aggregation_rules import Rule

Weights = NDArray[np.float64]
ByGram = Callable[[Gram, int], Weights]


def dnc(gram: Gram, max_faulty: int) -> Weights:
    """Mean of all but the f updates that stand out most along the direction of largest variance.

    Divide and conquer (Shejwalkar and Houmansadr, NDSS 2021). The paper samples coordinates to make the decomposition
    small; in terms of the Gram it is small for all of them, so this is one exact iteration with c = 1, without chance.
    One direction shows one kind of outlier: of two far out in different directions, the smaller may stay.
    """
    equal = np.full(gram.n, 1 / gram.n)
    _, direction = np.linalg.eigh(_about_mean(gram.centred, equal))
    kept = np.argsort(direction[:, -1] ** 2, kind="stable")[: gram.n - max_faulty]
    weights = np.zeros(gram.n)
    weights[kept] = 1 / len(kept)
    return weights


def caf(gram: Gram, max_faulty: int) -> Weights:
    """Covariance-bound agnostic filter (Allouah et al., CafCor, 2025).

    While the shares add up to more than n − 2f, each is lowered by its update's squared projection on the top
    eigenvector of the weighted covariance, relative to the largest one among shares that are left; the result is the
    weighted mean with the smallest top eigenvalue met. The eigenpair is exact.
    """
    shares, best, smallest = np.ones(gram.n), np.full(gram.n, 1 / gram.n), np.inf
    while True:
        weights = shares / shares.sum()
        used = np.flatnonzero(shares)
        covariance = _about_mean(gram.centred[np.ix_(used, used)], weights[used])
        root = np.sqrt(weights[used])
        values, vectors = np.linalg.eigh(root[:, None] * covariance * root)
        if values[-1] < smallest:
            smallest, best = values[-1], weights
        projections2 = (covariance @ (root * vectors[:, -1])) ** 2
        if projections2.max() == 0:
            return best
        shares[used] *= 1 - projections2 / projections2.max()
        if shares.sum() <= gram.n - 2 * max_faulty:
            return best


BY_GRAM: dict[Rule, ByGram] = {Rule.DNC: dnc, Rule.CAF: caf}
"""The rules that need no more than the Gram and f."""


def fltrust(norms: Weights, along: Weights, reference_norm: float) -> Weights:
    """Updates brought to the norm of a trusted reference, weighted by their cosine to it, none below 0.

    FLTrust (Cao et al., NDSS 2021). `along`: inner products with the reference. Raises AggregationError if no update
    points its way.
    """
    lengths = norms * reference_norm
    cosines = np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0)
    trust = np.clip(cosines, 0, 1)
    if trust.sum() == 0:
        raise AggregationError(
            "FLTrust leaves no update a share: none has a positive cosine to the reference; check the reference, and "
            "that updates and reference start from the same parent"
        )
    scale = np.divide(reference_norm, norms, out=np.zeros_like(norms), where=norms > 0)
    return np.asarray(trust * scale / trust.sum())


def _about_mean(centred: Matrix, weights: Weights) -> Matrix:
    """Inner products of differences from the weighted mean."""
    along = centred @ weights
    return centred - along[:, None] - along + weights @ along
