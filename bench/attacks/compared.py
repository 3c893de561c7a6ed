"""Rules that Concordat does not offer, beside its own: what the attack suite compares with.

They take updates (n, P), are computed in float64, and hold all of them in memory several times over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.attacks.hostile import Floats
from concordat.aggregation import aggregate, pre
from concordat.api.aggregation_rules import Rule

Wide = NDArray[np.float64]
_STEP, _SHIFT, _STEPS = 1e-10, 1e-9, 10_000


@dataclass(frozen=True)
class Given:
    """Facts that a rule is told beside the updates."""

    faulty: int
    """Updates to withstand."""
    cap: float = np.inf
    """Norm to which sites clip."""
    number: int = 0
    """The round's seed of what is drawn."""


Function = Callable[[Wide, Given], Wide]


@dataclass(frozen=True)
class Method:
    """A rule, after a pre-aggregation or none."""

    rule: Function
    """From updates (n, P): the weight of each, (n,), of which the aggregate is the sum; or the aggregate, (P,)."""
    weighs: bool
    """The rule gives weights."""
    mix: Function | None = None
    """From updates (n, P): the matrix (m, n) that makes the rule's m updates of them."""

    def __call__(self, rows: Floats, given: Given) -> tuple[Wide, Wide | None]:
        """Return the aggregate (P,), and the weights (n,) where the rule gives them."""
        wide = rows.astype(np.float64)
        mix = np.eye(len(wide)) if self.mix is None else self.mix(wide, given)
        found = self.rule(mix @ wide, given)
        weights = found @ mix if self.weighs else None
        return (found if weights is None else weights @ wide), weights


def krum(rows: Wide, given: Given) -> Wide:
    """Return the update with the smallest sum of squared distances to its n − f − 2 nearest (Blanchard et al., NIPS
    2017).
    """
    return _share(len(rows), _krum_order(_distances2(rows), given.faulty)[:1])


def multi_krum(rows: Wide, given: Given) -> Wide:
    """Mean of the n − f updates with the smallest Krum scores (Blanchard et al., NIPS 2017).

    The paper leaves the number open: Flower takes it as an option, ByzFL n − f, but scores with n − f − 1 neighbours.
    """
    return _share(len(rows), _krum_order(_distances2(rows), given.faulty)[: len(rows) - given.faulty])


def bulyan(rows: Wide, given: Given) -> Wide:
    """Mean of the n − 4f values nearest to the median, of n − 2f updates (El Mhamdi et al., ICML 2018).

    Krum chooses those one after the other, each time among the ones that are left.
    """
    distances2, left, chosen = _distances2(rows), list(range(len(rows))), []
    for _ in range(len(rows) - 2 * given.faulty):
        best = _krum_order(distances2[np.ix_(left, left)], given.faulty)[0]
        chosen.append(left.pop(int(best)))
    return _nearest_to_median(rows[sorted(chosen)], len(rows) - 4 * given.faulty)


def meamed(rows: Wide, given: Given) -> Wide:
    """Return of every column the mean of the n − f values nearest to the median (Xie et al., 2018)."""
    return _nearest_to_median(rows, len(rows) - given.faulty)


def median(rows: Wide, given: Given) -> Wide:
    """Return of every column the median (Yin et al., ICML 2018): the trimmed mean that cuts (n − 1) / 2."""
    return np.asarray(np.median(rows, axis=0))


def trimmed_mean(rows: Wide, given: Given) -> Wide:
    """Concordat's own, for what is mixed otherwise than Concordat mixes."""
    return np.asarray(np.sort(rows, axis=0)[given.faulty : len(rows) - given.faulty].mean(axis=0))


def caf(rows: Wide, given: Given) -> Wide:
    """Concordat's own, for what is mixed otherwise than Concordat mixes."""
    weights = aggregate([{"x": row.astype(np.float32)} for row in rows], Rule.CAF, given.faulty).weights
    assert weights is not None
    return weights


def geometric_median(rows: Wide, given: Given) -> Wide:
    """Return the point with the smallest sum of distances, by smoothed Weiszfeld steps (RFA; Pillutla et al., IEEE TSP
    2022).

    Until a step is shorter than 1e-10 of how far apart the updates are and moves no weight by 1e-9. Distances are
    smoothed below 1e-6 of that distance, not below a fixed length, which for small updates would give the mean.
    """
    distances2 = _distances2(rows)
    row, apart = _middle(distances2)
    if apart == 0:
        return _share(len(rows), np.flatnonzero(distances2[row] == 0))
    centred = _about(rows, row)
    weights = np.full(len(rows), 1 / len(rows))
    for _ in range(_STEPS):
        closeness = 1 / np.maximum(_distances_from(centred, weights), 1e-6 * apart)
        moved = closeness / closeness.sum()
        change = moved - weights
        weights = moved
        if np.abs(change).max() < _SHIFT and change @ centred @ change <= (_STEP * apart) ** 2:
            break
    return weights


def centered_clipping(rows: Wide, given: Given) -> Wide:
    """Three steps v + mean of (x − v) min(1, τ / |x − v|) (Karimireddy et al., ICML 2021).

    The paper starts at the last round's aggregate with a τ to be tuned. Here v starts at the update whose median
    distance to the others is smallest, and τ is that distance: nothing to tune, and no origin that matters.
    """
    start, radius = _middle(_distances2(rows))
    centred, weights = _about(rows, start), _share(len(rows), np.array([start]))
    for _ in range(3):
        kept = _clip_factors(_distances_from(centred, weights), radius)
        weights = weights * (1 - kept.mean()) + kept / len(rows)
    return weights


def norm_bounded_mean(rows: Wide, given: Given) -> Wide:
    """Mean of updates clipped to the cap (Sun et al., 2019)."""
    return _clip_factors(np.linalg.norm(rows, axis=1), given.cap) / len(rows)


def fools_gold(rows: Wide, given: Given) -> Wide:
    """Less for updates that point the same way as another (FoolsGold; Fung et al., RAID 2020); shares add up to 1.

    The paper compares sums over all rounds so far; this compares the round's updates. All 0 if each points the same
    way as another.
    """
    cosines = _cosines(rows)
    np.fill_diagonal(cosines, 0)
    closest = np.maximum(cosines.max(axis=1), 0)
    # Pardoning: who has a closer twin elsewhere is not held against an update.
    pardon = np.divide(closest[:, None], closest, out=np.ones_like(cosines), where=closest > closest[:, None])
    trust = np.clip(1 - np.maximum((cosines * pardon).max(axis=1), 0), 0, 1)
    if trust.max() == 0:
        return np.zeros(len(rows))
    trust = np.clip(trust / trust.max(), 1e-300, 0.99)
    shares = np.clip(np.log(trust / (1 - trust)) + 0.5, 0, 1)
    return np.asarray(shares / shares.sum())


def flame(rows: Wide, given: Given) -> Wide:
    """Mean of the largest cluster by cosine, clipped to the median norm of all (Nguyen et al., USENIX Security 2022).

    The paper's noise is left out: with standard deviation 0.001 of the median norm in each coordinate, its norm at 10
    million parameters is three times the update. All 0 if there is no cluster of more than half.
    """
    # Here, as it takes seconds: whoever collects the tests waits for it otherwise.
    from sklearn.cluster import HDBSCAN

    clusters = HDBSCAN(
        min_cluster_size=len(rows) // 2 + 1, min_samples=1, allow_single_cluster=True, metric="precomputed", copy=True
    )
    kept = clusters.fit(np.maximum(1 - _cosines(rows), 0)).labels_ == 0
    norms = np.linalg.norm(rows, axis=1)
    return np.asarray(kept * _clip_factors(norms, float(np.median(norms))) / max(kept.sum(), 1))


def nnm(rows: Wide, given: Given) -> Wide:
    """Nearest-neighbour mixing, as Concordat has it."""
    return pre.nnm(_distances2(rows), given.faulty)


def arc(rows: Wide, given: Given) -> Wide:
    """Adaptive robust clipping, as Concordat has it."""
    return np.diag(pre.arc(np.linalg.norm(rows, axis=1), given.faulty))


def bucketing(rows: Wide, given: Given) -> Wide:
    """(ceil(n / 2), n): means of random pairs; of an odd number, one update stays alone (Karimireddy et al., ICLR
    2022, section 5).
    """
    order = np.random.default_rng(given.number).permutation(len(rows))
    buckets = [order[start : start + 2] for start in range(0, len(rows), 2)]
    mix = np.zeros((len(buckets), len(rows)))
    for row, bucket in zip(mix, buckets, strict=True):
        row[bucket] = 1 / len(bucket)
    return mix


NOT_OFFERED: dict[str, Method] = {
    "norm-bounded mean": Method(norm_bounded_mean, weighs=True),
    "coordinate median": Method(median, weighs=False),
    "Krum": Method(krum, weighs=True),
    "Multi-Krum": Method(multi_krum, weighs=True),
    "Bulyan": Method(bulyan, weighs=False),
    "geometric median": Method(geometric_median, weighs=True),
    "centered clipping": Method(centered_clipping, weighs=True),
    "MeaMed": Method(meamed, weighs=False),
    "FoolsGold": Method(fools_gold, weighs=True),
    "FLAME": Method(flame, weighs=True),
    "NNM + median": Method(median, weighs=False, mix=nnm),
    "NNM + geometric median": Method(geometric_median, weighs=True, mix=nnm),
    "NNM + Krum": Method(krum, weighs=True, mix=nnm),
    "ARC + geometric median": Method(geometric_median, weighs=True, mix=arc),
    "ARC + Multi-Krum": Method(multi_krum, weighs=True, mix=arc),
    "bucketing + trimmed mean": Method(trimmed_mean, weighs=False, mix=bucketing),
    "bucketing + geometric median": Method(geometric_median, weighs=True, mix=bucketing),
    "bucketing + CAF": Method(caf, weighs=True, mix=bucketing),
}


def _nearest_to_median(rows: Wide, keep: int) -> Wide:
    """Return of every column the mean of the `keep` values nearest to the median; of two as near, the smaller one."""
    ordered = np.sort(rows, axis=0)
    away = np.abs(ordered - np.median(rows, axis=0))
    return np.asarray(np.take_along_axis(ordered, np.argsort(away, axis=0, kind="stable")[:keep], axis=0).mean(axis=0))


def _share(n: int, positions: NDArray[np.intp]) -> Wide:
    weights = np.zeros(n)
    weights[positions] = 1 / len(positions)
    return weights


def _krum_order(distances2: Wide, faulty: int) -> NDArray[np.intp]:
    """Positions by Krum score, at least one neighbour each; ties by the distance to all, then by position.

    Two that are each other's only neighbour always tie.
    """
    n = len(distances2)
    others = distances2.copy()
    np.fill_diagonal(others, np.inf)
    neighbours = min(max(1, n - faulty - 2), n - 1)
    scores = np.sort(others, axis=1)[:, :neighbours].sum(axis=1)
    return np.lexsort((distances2.sum(axis=1), scores))


def _middle(distances2: Wide) -> tuple[int, float]:
    """Return the update whose median distance to the others is smallest, and that distance."""
    medians = np.sort(distances2, axis=1)[:, 1 + (len(distances2) - 2) // 2]
    found = int(np.lexsort((distances2.sum(axis=1), medians))[0])
    return found, float(np.sqrt(medians[found]))


def _about(rows: Wide, origin: int) -> Wide:
    """(n, n): inner products of the differences from one of the updates."""
    away = rows - rows[origin]
    return np.asarray(away @ away.T)


def _distances2(rows: Wide) -> Wide:
    """(n, n): squared distances, of an update from itself 0."""
    centred = _about(rows, 0)
    own = centred.diagonal()
    found = np.maximum(own[:, None] + own - 2 * centred, 0)
    np.fill_diagonal(found, 0)
    return np.asarray(found)


def _distances_from(centred: Wide, weights: Wide) -> Wide:
    """(n,): distances of the updates from the point with these weights, which add up to 1."""
    along = centred @ weights
    return np.sqrt(np.maximum(centred.diagonal() - 2 * along + weights @ along, 0))


def _clip_factors(norms: Wide, bound: float) -> Wide:
    """min(1, bound / norm) for each norm; 1 for a norm of 0."""
    return np.minimum(1, np.divide(bound, norms, out=np.ones_like(norms), where=norms > 0))


def _cosines(rows: Wide) -> Wide:
    """(n, n) in [-1, 1]; 0 where an update is 0."""
    norms = np.linalg.norm(rows, axis=1)
    lengths = norms[:, None] * norms
    return np.asarray(np.clip(np.divide(rows @ rows.T, lengths, out=np.zeros_like(lengths), where=lengths > 0), -1, 1))
