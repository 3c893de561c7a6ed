"""Inner products and distances: right to float32 wherever the updates lie, however far out some of them are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.aggregation import AggregationError, Gram, Rows, gram
from concordat.aggregation.geometry import dots, middle

Array = NDArray[Any]


def rows(x: Array) -> Rows:
    return Rows([{"x": row} for row in x.astype(np.float32)])


def exact(x: Array) -> tuple[Array, Array]:
    x = x.astype(np.float32).astype(np.float64)
    return x @ x.T, np.array([[np.sum((one - other) ** 2) for other in x] for one in x])


def check(found: Gram, x: Array, tolerance: float = 1e-5) -> None:
    """Inner products relative to norms, distances relative to themselves, or to the usual one where that is more."""
    inner, distances2 = exact(x)
    norms = np.sqrt(inner.diagonal())
    np.testing.assert_allclose(found.norms, norms, rtol=1e-6)
    usual = np.maximum(norms, np.median(norms))
    assert (np.abs(found.inner - inner) <= tolerance * np.outer(usual, usual)).all()
    np.testing.assert_allclose(found.distances2, distances2, rtol=tolerance, atol=1e-6 * np.median(distances2))
    np.testing.assert_array_equal(found.distances2, found.distances2.T)
    np.testing.assert_array_equal(found.inner, found.inner.T)
    assert (found.distances2.diagonal() == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 16, 32, 33, 70])
@pytest.mark.parametrize("columns", [1, 511, 70_001])
def test_the_gram_is_that_of_float64(n: int, columns: int) -> None:
    x = np.random.default_rng(n).normal(size=(n, columns))
    check(gram(rows(x)), x)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e15, 1e30, 1e38])
def test_no_scale_overflows_or_vanishes(n: int, scale: float) -> None:
    x = np.random.default_rng(1).uniform(-3, 3, size=(n, 3000)) * scale
    check(gram(rows(x)), x)


@pytest.mark.parametrize("n", [5, 40])
def test_a_common_constant_of_norm_1000_spoils_no_distance(n: int) -> None:
    random = np.random.default_rng(2)
    constant = random.normal(size=4000)
    x = random.normal(size=(n, 4000)) / 60 + 1000 * constant / np.linalg.norm(constant)
    check(gram(rows(x)), x)


@pytest.mark.parametrize("places", [[0], [0, 1], [3], [0, 9], [8, 9]])
@pytest.mark.parametrize("sizes", [(1e2, 1e2), (1e4, 1e4), (1e10, 1e5), (1e15, 1e30), (1e35, 1e-20)])
def test_outliers_anywhere_spoil_no_distance_between_the_others(places: list[int], sizes: tuple[float, float]) -> None:
    x = np.random.default_rng(3).normal(size=(10, 2000))
    for place, size in zip(places, sizes, strict=False):
        x[place] *= size
    check(gram(rows(x)), x)


def test_a_small_update_keeps_its_norm_and_angle_beside_large_ones() -> None:
    x = np.random.default_rng(4).normal(size=(8, 5000))
    x[5] *= 1e-4
    x[6] = 0
    found = gram(rows(x))
    inner, _ = exact(x)
    np.testing.assert_allclose(found.norms[5], np.sqrt(inner[5, 5]), rtol=1e-6)
    assert found.norms[6] == 0
    cosines = found.inner[5, :5] / found.norms[5] / found.norms[:5]
    # The products have float32's error beside the large norms, 10^4 times as much beside the small one. How much of it
    # they have depends on the order in which a processor adds: 1.3e-3 here with AVX2, 3.6e-3 with SSE4.
    np.testing.assert_allclose(cosines, inner[5, :5] / np.sqrt(inner[5, 5] * inner.diagonal()[:5]), rtol=0, atol=1e-2)


def test_copies_lie_together() -> None:
    x = np.random.default_rng(5).normal(size=(9, 5000))
    x[4] = x[7] = x[1]
    distances2 = gram(rows(x)).distances2
    assert distances2[np.ix_([1, 4, 7], [1, 4, 7])].max() < 1e-6 * distances2[0, 1]
    assert gram(rows(np.repeat(x[:1], 5, axis=0))).distances2.max() == 0


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_a_choice_or_a_mixture_of_updates_needs_no_second_look_at_them(size: float) -> None:
    x = np.random.default_rng(6).normal(size=(9, 4000)).astype(np.float32).astype(np.float64)
    x[0] *= size
    whole = gram(rows(x))
    check(whole.select([4, 0, 7]), x[[4, 0, 7]])
    mix = np.random.default_rng(7).dirichlet(np.ones(9), size=4)
    for matrix in (mix, mix * [[2], [0.1], [1], [-1]]):
        made, wanted = whole.mixed(matrix), exact_mixture(matrix @ x)
        # As `check` has it of what the mixtures are made from.
        np.testing.assert_allclose(made.inner, wanted.inner, atol=1e-5 * np.abs(wanted.inner).max())
        np.testing.assert_allclose(made.distances2, wanted.distances2, atol=1e-5 * wanted.distances2.max())


def exact_mixture(y: Array) -> Gram:
    return Gram(y @ y.T, np.array([[np.sum((one - other) ** 2) for other in y] for one in y]))


def test_inner_products_and_distances_alone_make_a_gram() -> None:
    x = np.random.default_rng(8).normal(size=(7, 300)) + 5
    made = Gram(*exact(x))
    mix = np.random.default_rng(9).dirichlet(np.ones(7), size=3)
    np.testing.assert_allclose(made.mixed(mix).distances2, gram(rows(x)).mixed(mix).distances2, rtol=1e-5)
    np.testing.assert_allclose(made.select([3, 1]).mixed(mix[:, :2]).inner, exact(mix[:, :2] @ x[[3, 1]])[0], rtol=1e-5)
    assert Gram.empty().n == 0
    assert Gram.empty().select([]).norms.shape == (0,)


def test_the_middle_is_among_those_that_lie_together() -> None:
    x = np.random.default_rng(10).normal(size=(9, 50))
    x[[0, 3, 5, 8]] += 100
    row, distance = middle(exact(x)[1])
    assert row in (1, 2, 4, 6, 7)
    assert 5 < distance < 15
    assert middle(np.zeros((1, 1))) == (0, 0.0)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_dots_are_those_of_float64(scale: float) -> None:
    x = np.random.default_rng(11).normal(size=(5, 70_000)).astype(np.float32) * np.float32(scale)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(dots(rows(x), rows(x[:1])), wide @ wide[0], atol=1e-6 * (wide[0] @ wide[0]))
    both = rows(x)
    np.testing.assert_allclose(dots(both, both), np.vecdot(wide, wide), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_and_named(value: float) -> None:
    x = np.random.default_rng(12).normal(size=(6, 100_000))
    x[4, 99_998] = value
    with pytest.raises(AggregationError, match=rf"update 4: tensor x has the value {value} at index 99998"):
        gram(rows(x))
    with pytest.raises(AggregationError, match="update 4: tensor x"):
        dots(rows(x), rows(x))
