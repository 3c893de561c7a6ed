"""Rules whose result is a weighted sum of the updates: the weights, from how the updates lie to each other.

Every rule takes (gram, f) and gives (n,) float64. They cost nothing that grows with the size of an update.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from concordat.aggregation.geometry import Gram, Matrix, middle
from concordat.aggregation.pre import clip_factors
from concordat.aggregation.rows import AggregationError
from concordat.api.aggregation_rules import Rule

Weights = NDArray[np.float64]
ByGram = Callable[[Gram, int], Weights]

BY_GRAM: dict[Rule, ByGram] = {}
"""The rules that need no more than the Gram and f."""

_STEP = 1e-10
_SHIFT = 1e-9
_STEPS = 10_000
_CLIPPINGS = 3


def gives(rule: Rule) -> Callable[[ByGram], ByGram]:
    """Enter the function below as that rule."""

    def enter(function: ByGram) -> ByGram:
        BY_GRAM[rule] = function
        return function

    return enter


@gives(Rule.KRUM)
def krum(gram: Gram, max_faulty: int) -> Weights:
    """Return the update with the smallest sum of squared distances to its n − f − 2 nearest (Blanchard et al., NIPS
    2017).
    """
    return _share(gram.n, _krum_order(gram.distances2, max_faulty)[:1])


@gives(Rule.MULTI_KRUM)
def multi_krum(gram: Gram, max_faulty: int) -> Weights:
    """Mean of the n − f updates with the smallest Krum scores (Blanchard et al., NIPS 2017).

    The paper leaves the number open: Flower takes it as an option, ByzFL n − f, but scores with n − f − 1 neighbours.
    """
    return _share(gram.n, _krum_order(gram.distances2, max_faulty)[: gram.n - max_faulty])


def bulyan_selection(gram: Gram, max_faulty: int) -> list[int]:
    """Return the n − 2f updates that Krum chooses one after the other, each time among those left: Bulyan's first
    phase.

    El Mhamdi et al., ICML 2018. The second phase is `nearest_to_median` of them with n − 4f.
    """
    left, chosen = list(range(gram.n)), []
    for _ in range(gram.n - 2 * max_faulty):
        best = _krum_order(gram.distances2[np.ix_(left, left)], max_faulty)[0]
        chosen.append(left.pop(int(best)))
    return sorted(chosen)


@gives(Rule.GEOMETRIC_MEDIAN)
def geometric_median(gram: Gram, max_faulty: int) -> Weights:
    """Return the point with the smallest sum of distances, by smoothed Weiszfeld steps (RFA; Pillutla et al., IEEE TSP
    2022).

    Until a step is shorter than 1e-10 of how far apart the updates are and moves no weight by 1e-9. Distances are
    smoothed below 1e-6 of that distance, not below a fixed length, which for small updates would give the mean.
    """
    row, apart = middle(gram.distances2)
    if apart == 0:
        return _share(gram.n, np.flatnonzero(gram.distances2[row] == 0))
    weights = np.full(gram.n, 1 / gram.n)
    for _ in range(_STEPS):
        closeness = 1 / np.maximum(_distances_from(gram.centred, weights), 1e-6 * apart)
        moved = closeness / closeness.sum()
        change = moved - weights
        weights = moved
        # The length alone does not do: rounding makes the square of a step along a direction that the Gram hardly
        # has negative, however far the weights move.
        if np.abs(change).max() < _SHIFT and change @ gram.centred @ change <= (_STEP * apart) ** 2:
            break
    return weights


@gives(Rule.CENTERED_CLIPPING)
def centered_clipping(gram: Gram, max_faulty: int) -> Weights:
    """Three steps v + mean of (x − v) min(1, τ / |x − v|) (Karimireddy et al., ICML 2021).

    The paper starts at the last round's aggregate with a τ to be tuned. Here v starts at the update whose median
    distance to the others is smallest, and τ is that distance: nothing to tune, and no origin that matters.
    """
    start, radius = middle(gram.distances2)
    weights = _share(gram.n, np.array([start]))
    for _ in range(_CLIPPINGS):
        kept = clip_factors(_distances_from(gram.centred, weights), radius)
        weights = weights * (1 - kept.mean()) + kept / gram.n
    return weights


@gives(Rule.DNC)
def dnc(gram: Gram, max_faulty: int) -> Weights:
    """Mean of all but the f updates that stand out most along the direction of largest variance.

    Divide and conquer (Shejwalkar and Houmansadr, NDSS 2021). The paper samples coordinates to make the decomposition
    small; in terms of the Gram it is small for all of them, so this is one exact iteration with c = 1, without chance.
    One direction shows one kind of outlier: of two far out in different directions, the smaller may stay.
    """
    equal = np.full(gram.n, 1 / gram.n)
    _, direction = np.linalg.eigh(_about_mean(gram.centred, equal))
    kept = np.argsort(direction[:, -1] ** 2, kind="stable")[: gram.n - max_faulty]
    return _share(gram.n, kept)


@gives(Rule.CAF)
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


def norm_bounded(norms: Weights, max_norm: float) -> Weights:
    """Mean of updates clipped to a norm (Sun et al., 2019)."""
    return clip_factors(norms, max_norm) / len(norms)


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


def _share(n: int, positions: NDArray[np.intp]) -> Weights:
    weights = np.zeros(n)
    weights[positions] = 1 / len(positions)
    return weights


def _krum_order(distances2: Matrix, max_faulty: int) -> NDArray[np.intp]:
    """Positions by Krum score, at least one neighbour each; ties by the distance to all, then by position.

    Two that are each other's only neighbour always tie.
    """
    n = len(distances2)
    others = distances2.copy()
    np.fill_diagonal(others, np.inf)
    neighbours = min(max(1, n - max_faulty - 2), n - 1)
    scores = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return np.lexsort((distances2.sum(axis=1), scores))


def _distances_from(centred: Matrix, weights: Weights) -> Weights:
    """(n,): distances of the updates from the point with these weights, which add up to 1."""
    along = centred @ weights
    return np.sqrt(np.maximum(centred.diagonal() - 2 * along + weights @ along, 0))


def _about_mean(centred: Matrix, weights: Weights) -> Matrix:
    """Inner products of differences from the weighted mean."""
    along = centred @ weights
    return centred - along[:, None] - along + weights @ along
