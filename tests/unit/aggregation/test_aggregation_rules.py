"""Every rule and pre-aggregation against its definition (plain_rules.py), in float64."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from concordat.aggregation import AggregationError, aggregate, gram, mixing, shares
from concordat.aggregation.rows import Rows
from concordat.api.aggregation_rules import UNPROTECTED, PreAggregation, Rule, least_updates, most_faulty
from tests.unit.aggregation.plain_rules import RULES, Array, mixed, reference

WITH_PRE = [rule for rule in Rule if rule not in UNPROTECTED]


def updates(x: Array) -> list[dict[str, Array]]:
    cut = x.shape[1] // 3
    return [{"b": row[:cut].astype(np.float32), "a": row[cut:].astype(np.float32).reshape(2, -1)} for row in x]


def flat(tensors: dict[str, Array]) -> Array:
    return np.concatenate([tensors["b"], tensors["a"].reshape(-1)]).astype(np.float64)


def apply(x: Array, rule: Rule, f: int, **more: Any) -> Array:
    trusted = updates(reference(x)[None])[0] if rule is Rule.FLTRUST else None
    return flat(aggregate(updates(x), rule, f, **({"reference": trusted} | more)).tensors)


def sites(seed: int, n: int, f: int, columns: int = 42) -> Array:
    """Honest updates around a common direction, unlike each other, and f hostile ones; exact as float32."""
    random = np.random.default_rng(seed)
    x = 0.3 * random.normal(size=columns) + 0.2 * random.normal(size=(n, columns)) * random.uniform(0.5, 2, (n, 1))
    x[n - f :] = -2 * x[n - f :] + random.normal(size=columns)
    return x[random.permutation(n)].astype(np.float32).astype(np.float64)


def close(found: Array, wanted: Array, x: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(x).max())


CASES = [(rule, PreAggregation.NONE) for rule in Rule] + [
    (rule, pre) for rule in WITH_PRE for pre in PreAggregation if pre is not PreAggregation.NONE
]


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize(("n", "f", "seeds"), [(16, 3, [0, 1]), (23, 2, [2]), (37, 4, [3])])
def test_a_rule_is_what_its_paper_defines(rule: Rule, pre: PreAggregation, n: int, f: int, seeds: list[int]) -> None:
    for seed in seeds:
        x = sites(seed, n, f)
        close(apply(x, rule, f, pre=pre), RULES[rule](mixed(x, f, pre), f), x)


@pytest.mark.parametrize(("rule", "pre"), CASES)
def test_no_fault_at_all_needs_no_special_case(rule: Rule, pre: PreAggregation) -> None:
    for n in range(1, 8):
        x = sites(n, n, 0)
        close(apply(x, rule, 0, pre=pre), RULES[rule](mixed(x, 0, pre), 0), x)


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("f", [1, 3])
def test_one_update_too_few_is_refused_with_the_arithmetic(rule: Rule, pre: PreAggregation, f: int) -> None:
    least = least_updates(rule, f)
    x = sites(f, least, min(f, (least - 1) // 2))
    assert np.isfinite(apply(x, rule, f, pre=pre)).all()
    if least > 1:
        with pytest.raises(AggregationError, match=f"= {least} updates; there are {least - 1}"):
            apply(x[1:], rule, f, pre=pre)


@pytest.mark.parametrize(("rule", "pre"), CASES)
def test_the_order_of_updates_does_not_matter(rule: Rule, pre: PreAggregation) -> None:
    exact = rule is Rule.TRIMMED_MEAN and pre is PreAggregation.NONE
    for seed in range(4):
        x = sites(seed, 15, 3)
        trusted = updates(reference(x)[None])[0]
        order = np.random.default_rng(seed).permutation(15)
        one, other = (apply(rows, rule, 3, pre=pre, reference=trusted) for rows in (x, x[order]))
        if exact:
            np.testing.assert_array_equal(one, other)
        close(one, other, x)


@pytest.mark.parametrize(
    ("rule", "pre"),
    # These two measure from the parent, by angle or norm: another parent gives another result.
    [(rule, pre) for rule, pre in CASES if rule is not Rule.FLTRUST and pre is not PreAggregation.ARC],
)
def test_a_constant_of_norm_1000_moves_the_result_and_changes_nothing_else(rule: Rule, pre: PreAggregation) -> None:
    constant = np.random.default_rng(9).normal(size=600)
    constant *= 1000 / np.linalg.norm(constant)
    moved = (sites(1, 31, 3, 600) * 0.05 + constant).astype(np.float32).astype(np.float64)
    near = moved - constant
    found = apply(moved, rule, 3, pre=pre) - constant
    error = np.abs(found - RULES[rule](mixed(near, 3, pre), 3))
    # What float32 can hold of the moved values, a hundred times as large as those between them.
    assert np.quantile(error, 0.99) < 2e-7 * np.abs(moved).max()
    if rule is not Rule.TRIMMED_MEAN:
        there, here = (shares(gram(Rows(updates(rows))), rule, 3, pre=pre) for rows in (moved, near))
        assert there.sum() == pytest.approx(1)
        np.testing.assert_allclose(there, here, atol=1e-5)


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("scale", [2.0**-110, 2.0**120])
def test_a_scaled_round_gives_a_scaled_result(rule: Rule, pre: PreAggregation, scale: float) -> None:
    x = sites(4, 31, 3)
    one = apply(x, rule, 3, pre=pre)
    other = apply(x * scale, rule, 3, pre=pre, reference=updates(reference(x)[None] * scale)[0])
    np.testing.assert_allclose(other / scale, one, rtol=0, atol=4e-6 * np.abs(x).max() + 2.0**-146 / scale)


@pytest.mark.parametrize(("rule", "pre"), CASES)
@pytest.mark.parametrize("n", [1, 2, 11])
def test_equal_updates_give_that_update(rule: Rule, pre: PreAggregation, n: int) -> None:
    x = np.repeat(sites(2, 1, 0) * 0.1, n, axis=0)
    f = 0 if n < 11 else 1
    trusted = updates(x[:1])[0]
    np.testing.assert_allclose(apply(x, rule, f, pre=pre, reference=trusted), x[0], rtol=1e-6)


NOT_ROBUST = [Rule.MEAN, Rule.DNC]
"""DnC sees the larger of two outliers."""


@pytest.mark.parametrize(("rule", "pre"), [case for case in CASES if case[0] not in NOT_ROBUST])
@pytest.mark.parametrize("size", [1e2, 1e30])
@pytest.mark.parametrize("first", [True, False])
def test_enormous_updates_do_not_move_the_result_far(rule: Rule, pre: PreAggregation, size: float, first: bool) -> None:
    n, f = 11, 2
    x = sites(5, n, 0)
    hostile = [0, 1] if first else [n - 2, n - 1]
    honest = np.delete(x, hostile, axis=0)
    x[hostile] = np.random.default_rng(0).normal(size=(2, x.shape[1])) * size
    trusted = updates(reference(honest)[None])[0]
    found = apply(x, rule, f, pre=pre, reference=trusted)
    assert np.linalg.norm(found - honest.mean(axis=0)) < 3 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()


def test_a_majority_of_copies_is_the_trimmed_mean() -> None:
    x = sites(6, 7, 0)
    x[:5] = x[0]
    np.testing.assert_allclose(apply(x, Rule.TRIMMED_MEAN, 2), x[0], rtol=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule is not Rule.TRIMMED_MEAN])
def test_weights_are_the_shares_of_the_updates(rule: Rule) -> None:
    x = sites(7, 15, 3)
    trusted = updates(reference(x)[None])[0]
    made = aggregate(updates(x), rule, 3, reference=trusted)
    assert made.weights is not None
    close(flat(made.tensors), made.weights @ x, x)
    if rule is not Rule.FLTRUST:
        known = gram(Rows(updates(x)))
        np.testing.assert_allclose(shares(known, rule, 3), made.weights, rtol=1e-6)
        close(flat(aggregate(updates(x), rule, 3, gram=known).tensors), flat(made.tensors), x)


@pytest.mark.parametrize("pre", PreAggregation)
def test_the_mixing_matrix_makes_the_rows_that_the_rule_sees(pre: PreAggregation) -> None:
    x = sites(8, 15, 3)
    close(mixing(gram(Rows(updates(x))), pre, 3) @ x, mixed(x, 3, pre), x)


@pytest.mark.parametrize(
    ("rule", "more", "says"),
    [
        (Rule.MEAN, {"pre": PreAggregation.NNM}, "Mean takes no pre-aggregation, and preAggregation is NNM"),
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
        aggregate(x, rule, 1, **more)


def test_a_negative_number_of_faults_is_refused() -> None:
    with pytest.raises(AggregationError, match="maxFaultySites is -1"):
        aggregate([{"a": np.ones(2, np.float32)}] * 5, Rule.DNC, -1)


def test_a_gram_of_other_updates_is_refused() -> None:
    x = updates(sites(0, 7, 1))
    with pytest.raises(AggregationError, match="the Gram is of 6 updates and there are 7"):
        aggregate(x, Rule.DNC, 1, gram=gram(Rows(x[1:])))
    with pytest.raises(AggregationError, match="gives no shares by a Gram"):
        shares(gram(Rows(x)), Rule.TRIMMED_MEAN, 1)


@pytest.mark.parametrize(
    ("rule", "updates", "most"),
    [
        (Rule.DNC, 7, 3),
        (Rule.DNC, 6, 2),
        (Rule.DNC, 2, 0),
        (Rule.DNC, 0, 0),
        (Rule.DNC, 99, 5),
        (Rule.MEAN, 9, 0),
    ],
)
def test_the_most_that_a_rule_withstands(rule: Rule, updates: int, most: int) -> None:
    """Engine review, finding F5: of a budget of 5."""
    assert most_faulty(rule, 5, updates) == most


def test_a_weight_beyond_float32_gives_the_sum_and_no_warning() -> None:
    """Engine review, finding F14: FLTrust brings updates of next to no norm to that of the reference."""
    tiny = np.full(3, 1e-41, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = aggregate([{"a": tiny}] * 3, Rule.FLTRUST, 1, reference={"a": np.ones(3, np.float32)})
    np.testing.assert_allclose(found.tensors["a"], 1, rtol=1e-5)
