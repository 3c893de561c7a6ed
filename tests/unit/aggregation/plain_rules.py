"""Every rule and pre-aggregation by its definition, in plain NumPy, for rows that all fit in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.aggregation_rules import PreAggregation, Rule

Array = NDArray[Any]


def reference(x: Array) -> Array:
    """An update that points where most of them do."""
    return np.asarray(0.5 * np.median(x, axis=0) + 0.1)


def mean(x: Array, f: int) -> Array:
    return np.asarray(x.mean(axis=0))


def trimmed_mean(x: Array, f: int) -> Array:
    return np.array([np.mean(sorted(column)[f : len(column) - f]) for column in x.T])


def distances2(x: Array) -> Array:
    return np.array([[np.sum((one - other) ** 2) for other in x] for one in x])


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
    Rule.TRIMMED_MEAN: trimmed_mean,
    Rule.DNC: dnc,
    Rule.CAF: caf,
    Rule.FLTRUST: fltrust,
}


def mixed(x: Array, f: int, pre: PreAggregation) -> Array:
    n = len(x)
    match pre:
        case PreAggregation.NONE:
            return x
        case PreAggregation.NNM:
            return np.array([x[np.argsort(row, kind="stable")[: n - f]].mean(axis=0) for row in distances2(x)])
        case PreAggregation.ARC:
            norms = np.linalg.norm(x, axis=1)
            clipped = math.floor(2 * (f / n) * (n - f) + 1e-9)
            bound = sorted(norms)[n - clipped - 1]
            return np.array([row * min(1, bound / norm) for row, norm in zip(x, norms, strict=True)])
