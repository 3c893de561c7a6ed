"""The rules that are measured beside ours, by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.attacks.compared import flame, fools_gold
from bench.attacks.hostile import Floats


def sites(seed: int, n: int = 16) -> Floats:
    """Honest updates around a common direction, and three that go back along it."""
    random = np.random.default_rng(seed)
    rows = 0.3 * random.normal(size=42) + 0.2 * random.normal(size=(n, 42)) * random.uniform(0.5, 2, (n, 1))
    rows[-3:] = -2 * rows[-3:] + random.normal(size=42)
    return np.asarray(rows, dtype=np.float32)


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


@pytest.mark.parametrize("seed", range(4))
def test_fools_gold_is_what_its_paper_defines(seed: int) -> None:
    rows, n = sites(seed), 16
    x = rows.astype(np.float64)
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
    np.testing.assert_allclose(fools_gold(rows), weights / weights.sum(), rtol=0, atol=1e-9)


def test_fools_gold_gives_nothing_to_updates_that_are_all_alike() -> None:
    assert fools_gold(np.tile(np.array([2, 0, 0], np.float32), (5, 1))).tolist() == [0] * 5


def test_flame_keeps_the_majority_and_clips_it_to_the_median_norm() -> None:
    rows = sites(0)
    weights = flame(rows)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    kept = weights > 0
    assert kept.sum() > 8
    assert not kept[-3:].any()
    expected = np.minimum(1, np.median(norms) / norms[kept]) / kept.sum()
    np.testing.assert_allclose(weights[kept], expected, rtol=1e-9)
