"""Every rule and pre-aggregation against its definition, written out for rows that all fit in memory, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN

from concordat.aggregation import AggregationError, Parameters, aggregate, gram, mixing, shares
from concordat.aggregation.rows import Rows
from concordat.api.aggregation_rules import COORDINATE, STANDALONE, PreAggregation, Rule, least_updates

Array = NDArray[Any]
MAX_NORM = 2.0
WITH_PRE = [rule for rule in Rule if rule not in STANDALONE]
FROM_ZERO = [Rule.NORM_BOUNDED_MEAN, Rule.FLTRUST, Rule.FOOLSGOLD, Rule.FLAME]
"""Rules that measure from the parent, by norm or angle: another parent gives another result. So does ARC."""


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


def fools_gold(x: Array, f: int) -> Array:
    n = len(x)
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
    return np.asarray(weights @ x / weights.sum())


def flame(x: Array, f: int) -> Array:
    n = len(x)
    distances = np.array([[0 if i == j else 1 - cosine(x[i], x[j]) for j in range(n)] for i in range(n)])
    found = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=1, allow_single_cluster=True, metric="precomputed", copy=True
    ).fit(np.maximum(distances, 0))
    bound = np.median(np.linalg.norm(x, axis=1))
    return mean(np.array([row * min(1, bound / np.linalg.norm(row)) for row in x[found.labels_ == 0]]), f)


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
    Rule.FOOLSGOLD: fools_gold,
    Rule.FLAME: flame,
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


def reference(x: Array) -> Array:
    """An update that points where most of them do."""
    return np.asarray(0.5 * np.median(x, axis=0) + 0.1)


def updates(x: Array) -> list[dict[str, Array]]:
    cut = x.shape[1] // 3
    return [{"b": row[:cut].astype(np.float32), "a": row[cut:].astype(np.float32).reshape(2, -1)} for row in x]


def flat(tensors: dict[str, Array]) -> Array:
    return np.concatenate([tensors["b"], tensors["a"].reshape(-1)]).astype(np.float64)


def apply(x: Array, rule: Rule, f: int, **more: Any) -> Array:
    trusted = updates(reference(x)[None])[0] if rule is Rule.FLTRUST else None
    parameters = Parameters(**({"max_norm": MAX_NORM, "reference": trusted} | more))
    return flat(aggregate(updates(x), rule, f, parameters=parameters).tensors)


def sites(seed: int, n: int, f: int, columns: int = 42) -> Array:
    """Honest updates around a common direction, unlike each other, and f hostile ones; exact as float32."""
    random = np.random.default_rng(seed)
    x = 0.3 * random.normal(size=columns) + 0.2 * random.normal(size=(n, columns)) * random.uniform(0.5, 2, (n, 1))
    x[n - f :] = -2 * x[n - f :] + random.normal(size=columns)
    return x[random.permutation(n)].astype(np.float32).astype(np.float64)


def close(found: Array, wanted: Array, x: Array, rule: Rule = Rule.MEAN) -> None:
    # FoolsGold takes the logarithm of how far a cosine is from 1, of which float32 holds seven digits.
    relative = 2e-5 if rule is Rule.FOOLSGOLD else 1e-6
    np.testing.assert_allclose(found, wanted, rtol=0, atol=relative * np.abs(x).max())


CASES = [(rule, PreAggregation.NONE) for rule in Rule] + [
    (rule, pre) for rule in WITH_PRE for pre in PreAggregation if pre is not PreAggregation.NONE
]


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize(("n", "f", "seeds"), [(16, 3, [0, 1]), (23, 2, [2]), (37, 4, [3])])
def test_a_rule_is_what_its_paper_defines(rule: Rule, pre: PreAggregation, n: int, f: int, seeds: list[int]) -> None:
    f = min(f, max(g for g in range(f + 1) if least_updates(rule, pre, g) <= n))
    for seed in seeds:
        x = sites(seed, n, f)
        close(apply(x, rule, f, pre=pre, seed=seed), RULES[rule](mixed(x, f, pre, seed), f), x, rule)


@pytest.mark.parametrize(("rule", "pre"), CASES)
def test_no_fault_at_all_needs_no_special_case(rule: Rule, pre: PreAggregation) -> None:
    for n in range(3 if rule is Rule.FLAME else least_updates(rule, pre, 0), 8):
        x = sites(n, n, 0)
        close(apply(x, rule, 0, pre=pre), RULES[rule](mixed(x, 0, pre), 0), x, rule)


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("f", [1, 3])
def test_one_update_too_few_is_refused_with_the_arithmetic(rule: Rule, pre: PreAggregation, f: int) -> None:
    least = least_updates(rule, pre, f)
    x = sites(f, least, min(f, (least - 1) // 2))
    assert np.isfinite(apply(x, rule, f, pre=pre)).all()
    if least > 1:
        with pytest.raises(AggregationError, match=f"= {least} updates; there are {least - 1}"):
            apply(x[1:], rule, f, pre=pre)


@pytest.mark.parametrize(("rule", "pre"), [case for case in CASES if case[1] is not PreAggregation.BUCKETING])
def test_the_order_of_updates_does_not_matter(rule: Rule, pre: PreAggregation) -> None:
    exact = rule in COORDINATE and pre is PreAggregation.NONE
    for seed in range(4):
        x = sites(seed, 15, 3)
        trusted = updates(reference(x)[None])[0]
        order = np.random.default_rng(seed).permutation(15)
        one, other = (apply(rows, rule, 3, pre=pre, reference=trusted) for rows in (x, x[order]))
        if exact:
            np.testing.assert_array_equal(one, other)
        close(one, other, x, rule)


@pytest.mark.parametrize(
    ("rule", "pre"), [case for case in CASES if case[0] not in FROM_ZERO and case[1] is not PreAggregation.ARC]
)
def test_a_constant_of_norm_1000_moves_the_result_and_changes_nothing_else(rule: Rule, pre: PreAggregation) -> None:
    constant = np.random.default_rng(9).normal(size=600)
    constant *= 1000 / np.linalg.norm(constant)
    moved = (sites(1, 31, 3, 600) * 0.05 + constant).astype(np.float32).astype(np.float64)
    near = moved - constant
    found = apply(moved, rule, 3, pre=pre) - constant
    error = np.abs(found - RULES[rule](mixed(near, 3, pre), 3))
    # What float32 can hold of the moved values, a hundred times as large as those between them. Two that are as near to
    # a median may change places by it.
    assert np.quantile(error, 0.99) < 2e-7 * np.abs(moved).max()
    if rule not in COORDINATE:
        there, here = gram(Rows(updates(moved))), gram(Rows(updates(near)))
        for weights in (shares(g, rule, 3, parameters=Parameters(pre=pre)) for g in (there, here)):
            assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(
            shares(there, rule, 3, parameters=Parameters(pre=pre)),
            shares(here, rule, 3, parameters=Parameters(pre=pre)),
            atol=1e-5,
        )


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("scale", [2.0**-110, 2.0**120])
def test_a_scaled_round_gives_a_scaled_result(rule: Rule, pre: PreAggregation, scale: float) -> None:
    x = sites(4, 31, 3)
    one = apply(x, rule, 3, pre=pre)
    other = apply(
        x * scale, rule, 3, pre=pre, max_norm=MAX_NORM * scale, reference=updates(reference(x)[None] * scale)[0]
    )
    np.testing.assert_allclose(other / scale, one, rtol=0, atol=4e-6 * np.abs(x).max() + 2.0**-146 / scale)


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("n", [1, 2, 11])
def test_equal_updates_give_that_update(rule: Rule, pre: PreAggregation, n: int) -> None:
    x = np.repeat(sites(2, 1, 0) * 0.1, n, axis=0)
    f = 0 if n < 11 else 1
    if least_updates(rule, pre, f) > n:
        with pytest.raises(AggregationError, match=f"there are {n}"):
            apply(x, rule, f, pre=pre)
    elif rule is Rule.FOOLSGOLD and n > 1:
        with pytest.raises(AggregationError, match="leaves no update a share"):
            apply(x, rule, f)
    else:
        trusted = updates(x[:1])[0]
        np.testing.assert_allclose(apply(x, rule, f, pre=pre, reference=trusted), x[0], rtol=1e-6)


NOT_ROBUST = [Rule.MEAN, Rule.NORM_BOUNDED_MEAN, Rule.DNC, Rule.FOOLSGOLD, Rule.FLAME]
"""DnC sees the larger of two outliers; the last two go by angle, and enormous updates stand at any."""


@pytest.mark.parametrize(("rule", "pre"), [case for case in CASES if case[0] not in NOT_ROBUST])
@pytest.mark.parametrize("size", [1e2, 1e30])
@pytest.mark.parametrize("first", [True, False])
def test_enormous_updates_do_not_move_the_result_far(rule: Rule, pre: PreAggregation, size: float, first: bool) -> None:
    n, f = (23, 2) if pre is PreAggregation.BUCKETING else (11, 2)
    x = sites(5, n, 0)
    hostile = [0, 1] if first else [n - 2, n - 1]
    honest = np.delete(x, hostile, axis=0)
    x[hostile] = np.random.default_rng(0).normal(size=(2, x.shape[1])) * size
    trusted = updates(reference(honest)[None])[0]
    found = apply(x, rule, f, pre=pre, reference=trusted)
    assert np.linalg.norm(found - honest.mean(axis=0)) < 3 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()


@pytest.mark.parametrize(
    "rule", [Rule.COORDINATE_MEDIAN, Rule.TRIMMED_MEAN, Rule.MEAMED, Rule.KRUM, Rule.GEOMETRIC_MEDIAN]
)
def test_a_majority_of_copies_is_the_result(rule: Rule) -> None:
    x = sites(6, 7, 0)
    x[:5] = x[0]
    np.testing.assert_allclose(apply(x, rule, 2), x[0], rtol=1e-6)


@pytest.mark.parametrize(("n", "seed"), [(11, 263), (21, 225), (29, 3), (29, 242)])
def test_a_geometric_median_goes_on_where_rounding_makes_the_square_of_a_step_negative(n: int, seed: int) -> None:
    # One column: the Gram has rank one, and is not exactly positive semidefinite.
    x = np.random.default_rng(seed).standard_normal((n, 1)).astype(np.float32)
    found = aggregate([{"a": row} for row in x], Rule.GEOMETRIC_MEDIAN, 1).tensors["a"]
    np.testing.assert_allclose(found, np.median(x, axis=0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule not in COORDINATE])
def test_weights_are_the_shares_of_the_updates(rule: Rule) -> None:
    x = sites(7, 15, 3)
    trusted = updates(reference(x)[None])[0]
    made = aggregate(updates(x), rule, 3, parameters=Parameters(max_norm=MAX_NORM, reference=trusted))
    assert made.weights is not None
    close(flat(made.tensors), made.weights @ x, x)
    if rule is not Rule.FLTRUST:
        known = gram(Rows(updates(x)))
        np.testing.assert_allclose(
            shares(known, rule, 3, parameters=Parameters(max_norm=MAX_NORM)), made.weights, rtol=1e-6
        )
        close(
            flat(aggregate(updates(x), rule, 3, gram=known, parameters=Parameters(max_norm=MAX_NORM)).tensors),
            flat(made.tensors),
            x,
        )


@pytest.mark.parametrize("pre", PreAggregation)
def test_the_mixing_matrix_makes_the_rows_that_the_rule_sees(pre: PreAggregation) -> None:
    x = sites(8, 15, 3)
    close(mixing(gram(Rows(updates(x))), pre, 3, seed=5) @ x, mixed(x, 3, pre, 5), x)


@pytest.mark.parametrize(
    ("rule", "more", "says"),
    [
        (Rule.FLAME, {"pre": PreAggregation.NNM}, "FLAME takes no pre-aggregation, and preAggregation is NNM"),
        (Rule.NORM_BOUNDED_MEAN, {}, "max_norm that is positive and finite; it is None"),
        (Rule.NORM_BOUNDED_MEAN, {"max_norm": 0.0}, "it is 0.0"),
        (Rule.NORM_BOUNDED_MEAN, {"max_norm": math.nan}, "it is nan"),
        (Rule.FLTRUST, {}, "needs a reference"),
        (Rule.FLTRUST, {"reference": {"a": np.zeros(3, np.float32)}}, r"shapes: a has \[3\] in the reference"),
        (
            Rule.FLTRUST,
            {"reference": {"a": np.array([0, np.nan], np.float32)}},
            "the reference: tensor a has the value nan",
        ),
        (Rule.FLTRUST, {"reference": {"a": np.array([-1, 0], np.float32)}}, "FLTrust leaves no update a share"),
        (Rule.FLTRUST, {"reference": {"a": np.zeros(2, np.float32)}}, "FLTrust leaves no update a share"),
    ],
)
def test_what_a_rule_needs_is_asked_for(rule: Rule, more: dict[str, Any], says: str) -> None:
    x = [{"a": np.ones(2, np.float32)} for _ in range(5)]
    with pytest.raises(AggregationError, match=says):
        aggregate(x, rule, parameters=Parameters(**more))


def test_a_negative_number_of_faults_is_refused() -> None:
    with pytest.raises(AggregationError, match="maxFaultySites is -1"):
        aggregate([{"a": np.ones(2, np.float32)}] * 5, Rule.KRUM, -1)


def test_a_gram_of_other_updates_is_refused() -> None:
    x = updates(sites(0, 7, 1))
    with pytest.raises(AggregationError, match="the Gram is of 6 updates and there are 7"):
        aggregate(x, Rule.KRUM, 1, gram=gram(Rows(x[1:])))
    with pytest.raises(AggregationError, match="gives no shares by a Gram"):
        shares(gram(Rows(x)), Rule.TRIMMED_MEAN, 1)
