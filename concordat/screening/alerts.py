"""Step 7 of screening: what is out of the ordinary without being a reason to reject.

All of it is computed from norms, dot products and distances (Gram space), never from the updates themselves. Honest
sites with unusual data raise some of these too, which is why an alert alone rejects nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from concordat.screening.norms import signed

Floats = NDArray[np.float64]


class Alert(StrEnum):
    """What raised an alert."""

    LOG_NORM = "LogNorm"
    CENTRE_COSINE = "CentreCosine"
    MEAN_COSINE = "MeanCosine"
    SPECTRAL = "Spectral"
    KRUM = "Krum"
    FUNCTIONAL = "Functional"
    """A failed functional check, step 8; the others are step 7."""


LEAST_FOR_CENTRE = 3
"""Of two updates that disagree, nothing says which one is the stranger."""
LEAST_FOR_MAD = 8
"""With fewer, the median deviation is so uncertain that honest rounds raise alerts (5 % of sites at n = 5)."""


@dataclass(frozen=True)
class Limits:
    """Up to where a number is ordinary; scores are in robust standard deviations."""

    log_norm: float
    krum: float
    centre: float
    """Of the cosine to the centre, below the others' and below 0."""
    mean: float
    """Of the cosine to the round's mean, from which on it is out of the ordinary."""
    spectral: float
    share: float
    """Part of the variance between updates that the first component must hold before its scores mean anything."""


ALERTS = Limits(log_norm=4.4, krum=math.inf, centre=3.3, mean=-0.5, spectral=4.4, share=0.4)
"""What a person is told. Chosen for all together, over all sites of a round: at least nine of ten honest rounds of the
attack suite are silent, which is what control of false discoveries at 10 % comes to where all are honest (2.5 % for
each number, seeds 0 to 2 and 6 to 8). Krum's score has no such level: where sites are alike, honest ones reach 10."""
HINTS = Limits(log_norm=3.6, krum=2.6, centre=-math.inf, mean=-math.inf, spectral=3.6, share=0.3)
"""What counts beside a failed functional check, never alone: under skew every fourth honest update has one."""
_LEAST_RATIO = 1.5
"""No size within this factor of the median is an alert, however alike the others are: where most sites were clipped to
the same norm, their deviation is zero."""
_LEAST_COSINE_SPREAD = 1e-3
"""Where all updates lie alike to the centre, rounding would make scores."""
_FEW = 6
_NORMAL_MAD = 0.6745
"""MAD of the standard normal distribution."""

_SIZE = frozenset({Alert.LOG_NORM, Alert.KRUM})


def measure(norms: Floats, inner: Floats, distances2: Floats, faulty: int) -> list[dict[str, float]]:
    """Return the numbers of each of n updates among the others: norms (n,), all above zero; inner, distances2 (n, n).

    logNormScore: log-norm against the median, in robust standard deviations. centreCosine: cosine to `centre`, and
    centreScore how far it is below the median of them, likewise. meanCosine: cosine to the mean in which no update has
    more than the median norm; small steps against the others drag the robust centre along, the mean they cannot turn.
    spectralScore: position along the first principal component against the median, and spectralShare of the variance
    in it (Shejwalkar and Houmansadr, NDSS 2021, rank by it). krumScore: log of the sum of squared distances to the
    n − f − 2 nearest (Blanchard et al., NeurIPS 2017) against the median. Each only with updates enough to mean
    something.
    """
    n = len(norms)
    columns: dict[str, Floats] = {}
    if n >= LEAST_FOR_MAD:
        columns["logNormScore"] = _size_scores(norms, HINTS.log_norm)
        columns.update(_spectral(inner))
        columns.update(_cosines(inner, np.minimum(1, np.median(norms) / norms) / n, "meanCosine"))
    if n >= max(LEAST_FOR_MAD, 2 * faulty + 3):
        nearest = np.sort(distances2, axis=1)[:, 1 : n - faulty - 1]
        columns["krumScore"] = _size_scores(np.sqrt(nearest.sum(axis=1)), HINTS.krum)
    if n >= max(LEAST_FOR_CENTRE, 2 * faulty + 1):
        columns.update(_centre_cosines(inner, distances2, faulty))
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(n)]


def centre(inner: Floats, distances2: Floats, faulty: int) -> Floats:
    """Weights (n,), of sum 1, of the updates in a robust centre; 2f < n.

    NNM (Allouah et al., AISTATS 2023) replaces each update by the mean of the n − f nearest; a trimmed mean of those
    cannot be had from dot products. The centre is the mean of the n − f mixed updates nearest to n − f of them. The
    mean of all n would not do: a liar's own mixed update keeps it, so that at ten times the norm it turns the centre.
    """
    nearest = len(inner) - faulty
    mixing = np.zeros_like(inner)
    np.put_along_axis(mixing, np.argsort(distances2, axis=1, kind="stable")[:, :nearest], 1 / nearest, axis=1)
    mixed = mixing @ inner @ mixing.T
    apart = np.diag(mixed)[:, None] + np.diag(mixed) - 2 * mixed
    spread = np.sort(apart, axis=1)[:, :nearest].sum(axis=1)
    # With all that tie for the last place: with few updates many mix the same, and rounding or names must not choose.
    last = np.partition(spread, nearest - 1)[nearest - 1] + 1e-9 * spread.max()
    weights: Floats = mixing[spread <= last].mean(axis=0)
    return weights


def raised(numbers: Mapping[str, float], limits: Limits = ALERTS) -> dict[Alert, str]:
    """Return the alerts that these numbers raise, each in words. A number that was not computed raises none."""
    log_norm, krum = numbers.get("logNormScore", 0.0), numbers.get("krumScore", 0.0)
    spectral, share = numbers.get("spectralScore", 0.0), numbers.get("spectralShare", 0.0)
    cosine, centre_ = numbers.get("centreCosine", 1.0), numbers.get("centreScore", 0.0)
    found: dict[Alert, str] = {}
    if abs(log_norm) > limits.log_norm:
        found[Alert.LOG_NORM] = f"score {signed(log_norm)}, at most ±{signed(limits.log_norm)}"
    if cosine < 0 and centre_ > limits.centre:
        most = f", score {signed(centre_)}, at most {signed(limits.centre)}" if limits.centre > -math.inf else ""
        found[Alert.CENTRE_COSINE] = f"cosine {signed(cosine)}, at least 0{most}"
    if (mean := numbers.get("meanCosine", 1.0)) < limits.mean:
        found[Alert.MEAN_COSINE] = f"cosine {signed(mean)}, at least {signed(limits.mean)}"
    if spectral > limits.spectral and share > limits.share:
        found[Alert.SPECTRAL] = f"score {signed(spectral)}, at most {signed(limits.spectral)}"
    if krum > limits.krum:
        found[Alert.KRUM] = f"score {signed(krum)}, at most {signed(limits.krum)}"
    return found


def independent(hints: Iterable[Alert]) -> int:
    """Return how many of these are independent of each other: those that look at size (LogNorm, Krum) are one."""
    return len({Alert.LOG_NORM if hint in _SIZE else hint for hint in hints})


def _scores(values: Floats, least_spread: float) -> Floats:
    # Iglewicz and Hoaglin's modified z-score.
    deviations = values - np.median(values)
    # Of few values the deviation itself is uncertain, and scores are as Student's with few degrees of freedom.
    spread = max(float(np.median(np.abs(deviations))) / _NORMAL_MAD * (1 + _FEW / len(values)), least_spread)
    scores: Floats = deviations / spread
    return scores


def _size_scores(sizes: Floats, most: float) -> Floats:
    logs = np.log(np.maximum(sizes, np.finfo(np.float64).tiny))
    return _scores(logs, math.log(_LEAST_RATIO) / most)


def _spectral(inner: Floats) -> dict[str, Floats]:
    n = len(inner)
    means = inner.mean(axis=0)
    centred = inner - means - means[:, None] + means.mean()
    variance = float(np.trace(centred))
    if variance <= np.finfo(np.float64).eps * float(np.trace(inner)) * n:
        return {}
    values, vectors = np.linalg.eigh(centred)
    share = float(values[-1]) / variance
    # One standard deviation is at least a fifth of the usual distance from the mean: what is nearer to the median than
    # the usual update is to the mean is no outlier, even where the others' positions are all the same.
    scores = _scores(vectors[:, -1] * math.sqrt(max(float(values[-1]), 0)), math.sqrt(variance / n) / HINTS.spectral)
    return {"spectralScore": np.abs(scores), "spectralShare": np.full(n, share)}


def _centre_cosines(inner: Floats, distances2: Floats, faulty: int) -> dict[str, Floats]:
    found = _cosines(inner, centre(inner, distances2, faulty), "centreCosine")
    return {**found, "centreScore": _scores(-found["centreCosine"], _LEAST_COSINE_SPREAD)} if found else {}


def _cosines(inner: Floats, weights: Floats, name: str) -> dict[str, Floats]:
    """Return the cosines of the updates to their sum by these weights, under that name; nothing where they cancel."""
    norm2 = float(weights @ inner @ weights)
    # Where the updates cancel, the direction of what is left is rounding.
    if norm2 <= 1e-12 * float(np.mean(np.diag(inner))):
        return {}
    return {name: inner @ weights / np.sqrt(np.diag(inner) * norm2)}
