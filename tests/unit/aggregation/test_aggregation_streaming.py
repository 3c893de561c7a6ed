"""Blocks of columns: any number of threads makes the same bits, in bounded memory, and nothing slips through."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.aggregation import AggregationError, aggregate, gram
from concordat.aggregation.coordinate_rules import sort_rows
from concordat.aggregation.rows import Rows
from concordat.api.aggregation_rules import UNPROTECTED, PreAggregation, Rule, least_updates

Array = NDArray[Any]
T = TypeVar("T")
LARGEST = np.finfo(np.float32).max
_values = st.floats(width=32, allow_nan=False, allow_infinity=False)
_stacks = st.integers(1, 9).flatmap(lambda n: hnp.arrays(np.float32, (n, 5), elements=_values))


def named(stack: Array) -> list[dict[str, Array]]:
    return [{"x": row} for row in stack]


def several_blocks(n: int, dtype: Any = np.float32) -> list[dict[str, Array]]:
    random = np.random.default_rng(n)
    shapes = {"a": (300, 200), "b": (17,), "c": (1, 90_000), "d": ()}
    return [{name: np.asarray(random.normal(size=s) / 50, dtype=dtype) for name, s in shapes.items()} for _ in range(n)]


def by_threads(monkeypatch: pytest.MonkeyPatch, make: Callable[[], T]) -> list[T]:
    """What is made by one, two and three threads."""
    made = []
    for threads in "123":
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        made.append(make())
    return made


@pytest.mark.parametrize("rule", Rule)
def test_the_number_of_threads_changes_no_bit(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = several_blocks(11)
    made = by_threads(monkeypatch, lambda: aggregate(updates, rule, 2, reference=updates[3]).tensors)
    for name, tensor in made[0].items():
        assert tensor.dtype == np.float32
        assert tensor.shape == updates[0][name].shape
        assert all(tensor.tobytes() == other[name].tobytes() for other in made)


@pytest.mark.parametrize("pre", PreAggregation)
@pytest.mark.parametrize("n", [11, 40])
def test_nor_does_it_with_a_pre_aggregation(pre: PreAggregation, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = several_blocks(n)
    made = by_threads(monkeypatch, lambda: aggregate(updates, Rule.TRIMMED_MEAN, 2, pre=pre).tensors)
    assert all(made[0][name].tobytes() == other[name].tobytes() for name in made[0] for other in made)
    assert len(set(by_threads(monkeypatch, lambda: gram(Rows(updates)).inner.tobytes()))) == 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("rule", Rule)
def test_half_precision_is_widened_first(dtype: Any, rule: Rule) -> None:
    narrow = several_blocks(7, dtype)
    wide = [{name: tensor.astype(np.float32) for name, tensor in update.items()} for update in narrow]
    one, other = (aggregate(u, rule, 1, reference=u[0]).tensors for u in (narrow, wide))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@given(_stacks, st.sampled_from([(Rule.MEAN, 0), (Rule.TRIMMED_MEAN, 1), (Rule.TRIMMED_MEAN, 2)]))
def test_any_finite_values_give_the_result_of_float64(stack: Array, rule_and_f: tuple[Rule, int]) -> None:
    rule, f = rule_and_f
    n, wide = len(stack), np.sort(stack.astype(np.float64), axis=0)
    if n <= 2 * f:
        return
    keep = wide[f : n - f]
    found = aggregate(named(stack), rule, f).tensors["x"]
    slack = 1e-6 * np.abs(keep).max(axis=0) + 10 * float(np.finfo(np.float32).smallest_subnormal)
    assert (np.abs(found.astype(np.float64) - keep.mean(axis=0)) <= slack).all()
    assert (found >= keep.min(axis=0) - slack).all()


@given(_stacks, st.integers(0, 4), st.randoms(use_true_random=False))
def test_the_order_of_updates_changes_no_bit_of_a_trimmed_mean(stack: Array, f: int, random: Any) -> None:
    f = min(f, (len(stack) - 1) // 2)
    order = list(range(len(stack)))
    random.shuffle(order)
    one, other = (aggregate(named(rows), Rule.TRIMMED_MEAN, f).tensors["x"] for rows in (stack, stack[order]))
    assert one.tobytes() == other.tobytes()


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**32))
def test_a_network_sorts_what_the_cut_leaves_and_finds_both_ends(n: int, cut: int, seed: int) -> None:
    cut = min(cut, (n - 1) // 2)
    rows = np.random.default_rng(seed).integers(0, 5, size=(n, 200)).astype(np.float32)
    wanted, found = np.sort(rows, axis=0), sort_rows([*rows.copy()], np.empty(200, np.float32), cut)
    for place in {0, n - 1, *range(cut, n - cut)}:
        np.testing.assert_array_equal(found[place], wanted[place])


@pytest.mark.parametrize("cut", [0, 3])
@pytest.mark.parametrize("n", [7, 8, 31, 32, 33])
def test_few_and_many_updates_have_one_trimmed_mean(n: int, cut: int) -> None:
    updates = several_blocks(n)
    found = aggregate(updates, Rule.TRIMMED_MEAN, cut).tensors
    for name, tensor in found.items():
        kept = np.sort(np.stack([update[name] for update in updates]), axis=0)[cut : n - cut]
        np.testing.assert_allclose(tensor, kept.mean(axis=0, dtype=np.float64), rtol=0, atol=1e-7)


@given(
    st.integers(1, 3).flatmap(
        lambda f: st.tuples(
            hnp.arrays(np.float32, st.tuples(st.integers(f + 1, 6), st.just(4)), elements=_values),
            hnp.arrays(np.float32, (f, 4), elements=_values),
        )
    )
)
def test_faulty_updates_cannot_leave_the_honest_range(stacks: tuple[Array, Array]) -> None:
    honest, hostile = stacks
    found = aggregate(named(np.concatenate([hostile, honest])), Rule.TRIMMED_MEAN, len(hostile)).tensors["x"]
    assert (found >= honest.min(axis=0)).all()
    assert (found <= honest.max(axis=0)).all()


@given(_stacks, st.sampled_from([rule for rule in Rule if rule is not Rule.FLTRUST]))
def test_whatever_the_values_no_result_is_not_finite(stack: Array, rule: Rule) -> None:
    f = next(f for f in (2, 1, 0) if least_updates(rule, f) <= len(stack))
    assert np.isfinite(aggregate(named(stack), rule, f).tensors["x"]).all()


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_whatever_the_rule(rule: Rule, value: float) -> None:
    updates = several_blocks(15)
    updates[6]["c"][0, 60_000] = value
    for pre in PreAggregation if rule not in UNPROTECTED else [PreAggregation.NONE]:
        with pytest.raises(AggregationError, match=f"update 6: tensor c has the value {value} at index 60000"):
            aggregate(updates, rule, 1, pre=pre, reference=updates[0])


@pytest.mark.parametrize("rule", Rule)
def test_the_largest_of_float32_do_not_overflow(rule: Rule) -> None:
    x = np.array([LARGEST, -LARGEST, 1], np.float32)
    made = aggregate(named(np.array([x] * 7)), rule, 1, reference={"x": x})
    np.testing.assert_allclose(made.tensors["x"].astype(np.float64), x.astype(np.float64), rtol=1e-6)


def test_the_mean_follows_one_hostile_update_and_the_trimmed_mean_does_not() -> None:
    updates = named(np.array([[0.0], [0], [0], [0], [1e6]], np.float32))
    assert aggregate(updates, Rule.MEAN, 0).tensors["x"].tolist() == [200_000]
    assert aggregate(updates, Rule.TRIMMED_MEAN, 1).tensors["x"].tolist() == [0]


def test_the_updates_are_left_as_they_were() -> None:
    updates = several_blocks(7)
    before = [{name: tensor.copy() for name, tensor in update.items()} for update in updates]
    for rule in Rule:
        aggregate(updates, rule, 1, reference=updates[0])
    assert all(np.array_equal(one[n], other[n]) for one, other in zip(updates, before, strict=True) for n in one)


@pytest.mark.parametrize(
    ("rule", "pre", "n"),
    [
        (Rule.MEAN, PreAggregation.NONE, 64),
        (Rule.DNC, PreAggregation.ARC, 64),
        (Rule.TRIMMED_MEAN, PreAggregation.NNM, 256),
    ],
)
def test_memory_does_not_grow_with_the_round(
    rule: Rule, pre: PreAggregation, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    one = np.random.default_rng(0).normal(size=(8, 200_000)).astype(np.float32)
    updates = [{"x": one[i % 8] if i % 8 else one[i % 8] + np.float32(i)} for i in range(n)]
    tracemalloc.start()
    try:
        aggregate(updates, rule, n // 5, pre=pre)
        assert tracemalloc.get_traced_memory()[1] < one[0].nbytes + (128 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rule", Rule)
def test_progress_grows_to_all_columns(rule: Rule) -> None:
    updates, seen = several_blocks(11), list[tuple[int, int]]()
    aggregate(updates, rule, 2, progress=lambda *at: seen.append(at), reference=updates[0])
    assert len({size for _, size in seen}) == 1
    assert all(one[0] < other[0] for one, other in pairwise(seen))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("package", ["aggregation", "lora", "screening", "tensors"])
def test_importing_takes_no_torch_and_no_http_client(package: str) -> None:
    """Engine review, finding F14: the engine once imported the registry's client."""
    code = f"import sys, concordat.{package}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    clients = {"aiohttp", "http.client", "httpx", "kubernetes", "requests", "urllib3"}
    assert not {"concordat.artifacts", "peft", "torch", *clients} & set(done.stdout.split())
