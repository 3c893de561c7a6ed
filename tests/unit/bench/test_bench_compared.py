"""The rules that are measured beside ours, by their definitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.attacks.compared import NOT_OFFERED, Given, Method, flame, fools_gold, geometric_median, krum

Array = NDArray[np.float64]
CAP = 2.0


def sites(seed: int, n: int = 16) -> Array:
    """Honest updates around a common direction, and three that go back along it; exact as float32."""
    random = np.random.default_rng(seed)
    rows = 0.3 * random.normal(size=42) + 0.2 * random.normal(size=(n, 42)) * random.uniform(0.5, 2, (n, 1))
    rows[-3:] = -2 * rows[-3:] + random.normal(size=42)
    return rows.astype(np.float32).astype(np.float64)


def distances2(x: Array) -> Array:
    return np.array([[np.sum((one - other) ** 2) for other in x] for one in x])


def krum_scores(x: Array, f: int) -> Array:
    neighbours = max(1, len(x) - f - 2)
    return np.array([sum(sorted(np.delete(row, i))[:neighbours]) for i, row in enumerate(distances2(x))])


def krum_best(x: Array, f: int) -> int:
    """Two that are each other's only neighbour have the same score: then the sum of all distances decides."""
    scores, total = krum_scores(x, f), distances2(x).sum(axis=1)
    return int(min(np.flatnonzero(scores <= scores.min() * (1 + 1e-9)), key=lambda i: total[i]))


def multi_krum(x: Array, f: int) -> Array:
    return np.asarray(x[np.argsort(krum_scores(x, f))[: len(x) - f]].mean(axis=0))


def bulyan(x: Array, f: int) -> Array:
    left = list(range(len(x)))
    chosen = [left.pop(krum_best(x[left], f)) for _ in range(len(x) - 2 * f)]
    return nearest(x[chosen], len(x) - 4 * f)


def nearest(x: Array, keep: int) -> Array:
    middle = np.median(x, axis=0)
    return np.array(
        [np.mean(sorted(column, key=lambda v: (abs(v - m), v))[:keep]) for column, m in zip(x.T, middle, strict=True)]
    )


def weiszfeld(x: Array, f: int) -> Array:
    point = np.median(x, axis=0)
    for _ in range(20_000):
        closeness = 1 / np.maximum(np.linalg.norm(x - point, axis=1), 1e-9 * np.abs(x).max())
        before, point = point, closeness @ x / closeness.sum()
        if np.abs(point - before).max() < 1e-13 * np.abs(x).max():
            break
    return np.asarray(point)


def clipped_about_the_medoid(x: Array, f: int) -> Array:
    distances = np.sqrt(distances2(x))
    others = np.array([sorted(np.delete(row, i))[(len(x) - 2) // 2] for i, row in enumerate(distances)])
    point, radius = x[np.argmin(others)], others.min()
    for _ in range(3):
        away = x - point
        point = point + np.mean([d * min(1, radius / max(np.linalg.norm(d), 1e-300)) for d in away], axis=0)
    return np.asarray(point)


DEFINITIONS: dict[str, Callable[[Array, int], Array]] = {
    "norm-bounded mean": lambda x, f: np.mean([row * min(1, CAP / np.linalg.norm(row)) for row in x], axis=0),
    "coordinate median": lambda x, f: np.median(x, axis=0),
    "Krum": lambda x, f: x[krum_best(x, f)],
    "Multi-Krum": multi_krum,
    "Bulyan": bulyan,
    "geometric median": weiszfeld,
    "centered clipping": clipped_about_the_medoid,
    "MeaMed": lambda x, f: nearest(x, len(x) - f),
}


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("seed", range(3))
def test_a_rule_is_what_its_paper_defines(name: str, seed: int) -> None:
    rows = sites(seed)
    found, weights = NOT_OFFERED[name](rows.astype(np.float32), Given(3, CAP))
    np.testing.assert_allclose(found, DEFINITIONS[name](rows, 3), rtol=0, atol=1e-6)
    if weights is not None:
        np.testing.assert_allclose(weights @ rows, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_every_method_gives_what_its_parts_give(name: str) -> None:
    rows, given = sites(1), Given(3, CAP, number=5)
    method = NOT_OFFERED[name]
    found, weights = method(rows.astype(np.float32), given)
    assert found.shape == (42,)
    assert (weights is not None) == method.weighs
    mixed = rows if method.mix is None else method.mix(rows, given) @ rows
    alone, _ = Method(method.rule, method.weighs)(mixed.astype(np.float32), given)
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)


def test_a_majority_of_copies_is_the_result() -> None:
    rows = sites(6, 7)
    rows[:5] = rows[0]
    for name in ("coordinate median", "Krum", "geometric median", "MeaMed"):
        np.testing.assert_allclose(NOT_OFFERED[name](rows.astype(np.float32), Given(2))[0], rows[0], rtol=1e-6)


def test_krum_takes_one_update() -> None:
    assert sorted(krum(sites(2), Given(3)).tolist()) == [0] * 15 + [1]


@pytest.mark.parametrize(("n", "seed"), [(11, 263), (21, 225), (29, 3), (29, 242)])
def test_a_geometric_median_goes_on_where_rounding_makes_the_square_of_a_step_negative(n: int, seed: int) -> None:
    # One column: the products have rank one, and are not exactly positive semidefinite.
    rows = np.random.default_rng(seed).standard_normal((n, 1))
    np.testing.assert_allclose(geometric_median(rows, Given(1)) @ rows, np.median(rows, axis=0), rtol=0, atol=1e-5)


def cosine(one: Array, other: Array) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


@pytest.mark.parametrize("seed", range(4))
def test_fools_gold_is_what_its_paper_defines(seed: int) -> None:
    x, n = sites(seed), 16
    cosines = [[0.0 if i == j else cosine(x[i], x[j]) for j in range(n)] for i in range(n)]
    closest = [max(row) for row in cosines]
    for i in range(n):
        for j in range(n):
            if closest[i] < closest[j]:
                cosines[i][j] *= closest[i] / closest[j]
    alpha = np.array([min(max(1 - max(row), 0), 1) for row in cosines])
    alpha /= alpha.max()
    alpha[alpha == 1] = 0.99
    weights = np.array([min(max(math.log(a / (1 - a)) + 0.5, 0), 1) if a > 0 else 0 for a in alpha])
    np.testing.assert_allclose(fools_gold(x, Given(3)), weights / weights.sum(), rtol=0, atol=1e-9)


def test_fools_gold_gives_nothing_to_updates_that_are_all_alike() -> None:
    assert fools_gold(np.tile(np.array([2.0, 0, 0]), (5, 1)), Given(1)).tolist() == [0] * 5


def test_flame_keeps_the_majority_and_clips_it_to_the_median_norm() -> None:
    rows = sites(0)
    weights = flame(rows, Given(3))
    norms = np.linalg.norm(rows, axis=1)
    kept = weights > 0
    assert kept.sum() > 8
    assert not kept[-3:].any()
    expected = np.minimum(1, np.median(norms) / norms[kept]) / kept.sum()
    np.testing.assert_allclose(weights[kept], expected, rtol=1e-9)
