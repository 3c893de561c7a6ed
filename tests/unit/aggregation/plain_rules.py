"""Every rule and pre-aggregation by its definition, in plain NumPy, for rows that all fit in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.aggregation_rules import PreAggregation, Rule

Array = NDArray[Any]
MAX_NORM = 2.0


def reference(x: Array) -> Array:
    """An update that points where most of them do."""
    return np.asarray(0.5 * np.median(x, axis=0) + 0.1)


def mean(x: Array, f: int) -> Array:
    return np.asarray(x.mean(axis=0))


def norm_bounded_mean(x: Array, f: int) -> Array:
    return mean(np.array([row * min(1, MAX_NORM / np.linalg.norm(row)) for row in x]), f)


def coordinate_median(x: Array, f: int) -> Array:
    return np.asarray(np.median(x, axis=0))


def trimmed_mean(x: Array, f: int) -> Array:
    return np.array([np.mean(sorted(column)[f : len(column) - f]) for column in x.T])


def distances2(x: Array) -> Array:
    return np.array([[np.sum((one - other) ** 2) for other in x] for one in x])


def krum_scores(x: Array, f: int) -> Array:
    neighbours = max(1, len(x) - f - 2)
    return np.array([sum(sorted(np.delete(row, i))[:neighbours]) for i, row in enumerate(distances2(x))])


def krum_best(x: Array, f: int) -> int:
    """Two that are each other's only neighbour have the same score: then the sum of all distances decides."""
    scores, total = krum_scores(x, f), distances2(x).sum(axis=1)
    return int(min(np.flatnonzero(scores <= scores.min() * (1 + 1e-9)), key=lambda i: total[i]))


def krum(x: Array, f: int) -> Array:
    return np.asarray(x[krum_best(x, f)])


def multi_krum(x: Array, f: int) -> Array:
    return mean(x[np.argsort(krum_scores(x, f))[: len(x) - f]], f)


def bulyan(x: Array, f: int) -> Array:
    left = list(range(len(x)))
    chosen = [left.pop(krum_best(x[left], f)) for _ in range(len(x) - 2 * f)]
    return nearest(x[chosen], len(x) - 4 * f)


def nearest(x: Array, keep: int) -> Array:
    middle = np.median(x, axis=0)
    return np.array(
        [np.mean(sorted(column, key=lambda v: (abs(v - m), v))[:keep]) for column, m in zip(x.T, middle, strict=True)]
    )


def meamed(x: Array, f: int) -> Array:
    return nearest(x, len(x) - f)


def geometric_median(x: Array, f: int) -> Array:
    point = coordinate_median(x, f)
    for _ in range(20_000):
        closeness = 1 / np.maximum(np.linalg.norm(x - point, axis=1), 1e-9 * np.abs(x).max())
        before, point = point, closeness @ x / closeness.sum()
        if np.abs(point - before).max() < 1e-13 * np.abs(x).max():
            break
    return np.asarray(point)


def centered_clipping(x: Array, f: int) -> Array:
    if len(x) == 1:
        return np.asarray(x[0])
    distances = np.sqrt(distances2(x))
    others = np.array([sorted(np.delete(row, i))[(len(x) - 2) // 2] for i, row in enumerate(distances)])
    point, radius = x[np.lexsort((distances2(x).sum(axis=1), others))[0]], others.min()
    for _ in range(3):
        away = x - point
        point = point + np.mean([d * min(1, radius / max(np.linalg.norm(d), 1e-300)) for d in away], axis=0)
    return np.asarray(point)


def dnc(x: Array, f: int) -> Array:
    direction = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][0]
    scores = ((x - x.mean(axis=0)) @ direction) ** 2
    return mean(x[np.argsort(scores)[: len(x) - f]], f)


def caf(x: Array, f: int) -> Array:
    shares, best = np.ones(len(x)), (np.inf, x.mean(axis=0))
    while shares.sum() > len(x) - 2 * f:
        middle = shares @ x / shares.sum()
        away = x - middle
        values, vectors = np.linalg.eigh((away.T * shares) @ away / shares.sum())
        if values[-1] < best[0]:
            best = values[-1], middle
        projections2 = (away @ vectors[:, -1]) ** 2
        shares = np.maximum(shares * (1 - projections2 / projections2[shares > 0].max()), 0)
    return np.asarray(best[1])


def cosine(one: Array, other: Array) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def fltrust(x: Array, f: int) -> Array:
    trusted = reference(x)
    trust = [max(0.0, cosine(row, trusted)) for row in x]
    brought = [t * np.linalg.norm(trusted) / np.linalg.norm(row) * row for t, row in zip(trust, x, strict=True)]
    return np.asarray(sum(brought) / sum(trust))


RULES: dict[Rule, Callable[[Array, int], Array]] = {
    Rule.MEAN: mean,
    Rule.NORM_BOUNDED_MEAN: norm_bounded_mean,
    Rule.COORDINATE_MEDIAN: coordinate_median,
    Rule.TRIMMED_MEAN: trimmed_mean,
    Rule.KRUM: krum,
    Rule.MULTI_KRUM: multi_krum,
    Rule.BULYAN: bulyan,
    Rule.GEOMETRIC_MEDIAN: geometric_median,
    Rule.CENTERED_CLIPPING: centered_clipping,
    Rule.MEAMED: meamed,
    Rule.DNC: dnc,
    Rule.CAF: caf,
    Rule.FLTRUST: fltrust,
}


def mixed(x: Array, f: int, pre: PreAggregation, seed: int = 0) -> Array:
    n = len(x)
    match pre:
        case PreAggregation.NONE:
            return x
        case PreAggregation.NNM:
            return np.array([x[np.argsort(row, kind="stable")[: n - f]].mean(axis=0) for row in distances2(x)])
        case PreAggregation.BUCKETING:
            order = np.random.default_rng(seed).permutation(n)
            return np.array([x[order[i : i + 2]].mean(axis=0) for i in range(0, n, 2)])
        case PreAggregation.ARC:
            norms = np.linalg.norm(x, axis=1)
            clipped = math.floor(2 * (f / n) * (n - f) + 1e-9)
            bound = sorted(norms)[n - clipped - 1]
            return np.array([row * min(1, bound / norm) for row, norm in zip(x, norms, strict=True)])
