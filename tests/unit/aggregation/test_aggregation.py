"""The rules against plain numpy, their bounds under attack, and their independence of order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.aggregation import AggregationError, aggregate, apply_delta
from concordat.api.rules import Rule

_values = st.floats(width=32, allow_nan=False, allow_infinity=False)
_stacks = st.integers(1, 9).flatmap(lambda n: hnp.arrays(np.float32, (n, 2, 3), elements=_values))
Stack = NDArray[np.float32]


def _named(stack: Stack) -> list[dict[str, NDArray[Any]]]:
    return [{"x": row, "y": row[0]} for row in stack]


def _slack(stack: Stack) -> float:
    """What rounding may cost: of large values that cancel out, and of a result below the smallest float32."""
    return 1e-12 * float(np.abs(stack).max()) + float(np.finfo(np.float32).smallest_subnormal)


@given(_stacks)
def test_mean_and_median_are_those_of_numpy(stack: Stack) -> None:
    wide = stack.astype(np.float64)
    mean, median = (aggregate(_named(stack), rule, 0) for rule in (Rule.MEAN, Rule.COORDINATE_MEDIAN))
    np.testing.assert_allclose(mean["x"], wide.mean(axis=0), rtol=1e-6, atol=_slack(stack))
    np.testing.assert_allclose(median["x"], np.median(wide, axis=0), rtol=1e-6, atol=_slack(stack))
    np.testing.assert_array_equal(mean["y"], mean["x"][0])


@given(_stacks, st.integers(0, 4))
def test_the_trimmed_mean_is_that_of_its_definition(stack: Stack, faulty: int) -> None:
    n = len(stack)
    if n <= 2 * faulty:
        with pytest.raises(AggregationError, match=f"at least {2 * faulty + 1} verified updates; there are {n}"):
            aggregate(_named(stack), Rule.TRIMMED_MEAN, faulty)
        return
    wanted = np.empty(stack.shape[1:])
    for index in np.ndindex(*wanted.shape):
        kept = sorted(float(row[index]) for row in stack)[faulty : n - faulty]
        wanted[index] = sum(kept) / len(kept)
    found = aggregate(_named(stack), Rule.TRIMMED_MEAN, faulty)["x"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=_slack(stack))


@given(_stacks, st.sampled_from(Rule), st.randoms(use_true_random=False))
def test_the_order_of_updates_changes_no_bit(stack: Stack, rule: Rule, random: Any) -> None:
    faulty = (len(stack) - 1) // 2
    order = list(range(len(stack)))
    random.shuffle(order)
    one, other = aggregate(_named(stack), rule, faulty), aggregate(_named(stack[order]), rule, faulty)
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in other.items()}


@given(
    st.integers(1, 3).flatmap(
        lambda f: st.tuples(
            hnp.arrays(np.float32, st.tuples(st.integers(f + 1, 6), st.just(4)), elements=_values),
            hnp.arrays(np.float32, (f, 4), elements=_values),
        )
    ),
    st.sampled_from([Rule.TRIMMED_MEAN, Rule.COORDINATE_MEDIAN]),
)
def test_faulty_updates_cannot_leave_the_honest_range(stacks: tuple[Stack, Stack], rule: Rule) -> None:
    honest, hostile = stacks
    updates = [{"x": row} for row in np.concatenate([hostile, honest])]
    found = aggregate(updates, rule, len(hostile))["x"]
    assert (found >= honest.min(axis=0)).all()
    assert (found <= honest.max(axis=0)).all()


def test_the_mean_follows_one_hostile_update() -> None:
    updates = [{"x": np.zeros(1, np.float32)}] * 4 + [{"x": np.full(1, 1e6, np.float32)}]
    assert aggregate(updates, Rule.MEAN, 0)["x"].tolist() == [200_000]
    assert aggregate(updates, Rule.TRIMMED_MEAN, 1)["x"].tolist() == [0]


@pytest.mark.parametrize("rule", Rule)
def test_the_extremes_of_float32_do_not_overflow(rule: Rule) -> None:
    largest = np.finfo(np.float32).max
    found = aggregate([{"x": np.array([largest, -largest], np.float32)}] * 5, rule, 1)["x"]
    assert found.tolist() == [largest, -largest]


@pytest.mark.parametrize(
    ("deltas", "says"),
    [
        ([], "no update"),
        ([{"x": np.zeros(2)}, {"y": np.zeros(2)}], "differ"),
        ([{"x": np.zeros(2)}, {"x": np.zeros(3)}], "differ"),
    ],
)
def test_updates_that_do_not_fit_are_not_combined(deltas: list[Any], says: str) -> None:
    with pytest.raises(AggregationError, match=says):
        aggregate(deltas, Rule.MEAN, 0)


def test_the_updates_are_left_as_they_were() -> None:
    stack = np.array([[3.0], [1.0], [2.0]], np.float32)
    aggregate([{"x": row} for row in stack], Rule.TRIMMED_MEAN, 1)
    assert stack.tolist() == [[3], [1], [2]]


def test_applying_changes_only_what_the_delta_names() -> None:
    parent = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    found = apply_delta(parent, {"b": np.full(2, 0.5, np.float32)})
    assert {n: t.tolist() for n, t in found.items()} == {"a": [1, 1], "b": [1.5, 1.5]}
    assert all(t.dtype == np.float32 for t in found.values())
    assert parent["b"].tolist() == [1, 1]


@pytest.mark.parametrize("delta", [{"c": np.zeros(2, np.float32)}, {"a": np.zeros(3, np.float32)}])
def test_a_delta_that_does_not_fit_the_parent_is_not_applied(delta: dict[str, Any]) -> None:
    with pytest.raises(AggregationError, match="the parent has no tensor"):
        apply_delta({"a": np.ones(2, np.float32)}, delta)
