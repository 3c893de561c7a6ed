"""Rules that Concordat does not offer, beside its own: both judge by angle and know no number of faulty sites.

They take updates (n, P) and give each a weight (n,); the aggregate is the weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bench.attacks.hostile import Floats

Weights = NDArray[np.float64]
Weigh = Callable[[Floats], Weights]


def fools_gold(rows: Floats) -> Weights:
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


def flame(rows: Floats) -> Weights:
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
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    clipped = np.minimum(1, np.median(norms) / np.maximum(norms, np.finfo(np.float64).tiny))
    return np.asarray(kept * clipped / max(kept.sum(), 1))


NOT_OFFERED: dict[str, Weigh] = {"FoolsGold": fools_gold, "FLAME": flame}


def _cosines(rows: Floats) -> Weights:
    """(n, n) in [-1, 1]; 0 where an update is 0."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    lengths = norms[:, None] * norms
    return np.asarray(np.clip(np.divide(wide @ wide.T, lengths, out=np.zeros_like(lengths), where=lengths > 0), -1, 1))
