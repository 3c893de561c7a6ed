"""Whitened coordinates are as long as the weight changes, and their average is exact."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import Adapter, LoraError, Whitening
from concordat.tensors import pad
from tests.unit.lora.adapters import Named, build, by_module, changes, parents, update, weights

_one = st.sampled_from([Factor.A, Factor.B])
_sizes = st.sampled_from([1e-12, 1.0, 1e9])
Drawn = tuple[Adapter, np.random.Generator]


def _flat(x: Named) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.concatenate([x[name].astype(np.float64).ravel() for name in sorted(x)])


@given(parents(), _one, _sizes)
def test_whitening_is_an_isometry(drawn: Drawn, factor: Factor, size: float) -> None:
    parent, rng = drawn
    whitening = Whitening.of(parent, factor)
    deltas = [update(rng, parent, factor, size) for _ in range(3)]
    # The difference of products cancels for small deltas; as the change is linear, they are enlarged instead.
    exact = changes(parent, [{n: t.astype(np.float64) / size for n, t in delta.items()} for delta in deltas])
    x = np.stack([_flat(whitening.whiten(delta)) for delta in deltas]) / size
    scale = np.square(exact).sum(axis=1).max()
    np.testing.assert_allclose(x @ x.T, exact @ exact.T, atol=1e-6 * scale)


@given(parents(), _one, _sizes)
def test_norms_are_those_of_the_weight_change(drawn: Drawn, factor: Factor, size: float) -> None:
    parent, rng = drawn
    delta = update(rng, parent, factor, size)
    norms = Whitening.of(parent, factor).norms(delta)
    before, after = by_module(parent), by_module(parent, {n: t.astype(np.float64) / size for n, t in delta.items()})
    for name, norm in norms.items():
        assert norm == pytest.approx(size * np.linalg.norm(after[name] - before[name]), rel=1e-6)


@given(parents(), _one, _sizes)
def test_one_pass_gives_what_two_give(drawn: Drawn, factor: Factor, size: float) -> None:
    parent, rng = drawn
    whitening, delta = Whitening.of(parent, factor), update(rng, parent, factor, size)
    x, norms = whitening.measure(delta)
    assert norms == whitening.norms(delta)
    assert all(x[name].tobytes() == tensor.tobytes() for name, tensor in whitening.whiten(delta).items())


@given(parents(), _one, st.integers(1, 5))
def test_the_average_is_that_of_the_weight_changes(drawn: Drawn, factor: Factor, n: int) -> None:
    parent, rng = drawn
    whitening = Whitening.of(parent, factor)
    # Unequal ranks: each site trains some of the first components.
    ranks = rng.integers(1, 7, n)
    deltas = [pad(update(rng, parent, factor, rank=int(rank)), parent.tensors(), factor) for rank in ranks]
    whitened = [whitening.whiten(delta) for delta in deltas]
    mean = {name: np.asarray(np.mean([x[name] for x in whitened], axis=0, dtype=np.float64)) for name in whitened[0]}
    exact = changes(parent, deltas)
    got = changes(parent, [whitening.unwhiten(mean)])[0]
    # Rounding of float32 is magnified by the condition of the fixed factor in the coordinates, not in the change.
    np.testing.assert_allclose(
        got, exact.mean(axis=0), atol=1e-4 * max(np.abs(exact).max(), np.abs(weights(parent)).max())
    )


@given(parents(), _one)
def test_unwhitening_gives_the_delta_back_where_the_fixed_factor_has_full_rank(drawn: Drawn, factor: Factor) -> None:
    parent, rng = drawn
    whitening = Whitening.of(parent, factor)
    delta = update(rng, parent, factor)
    back = whitening.unwhiten(whitening.whiten(delta))
    for module in parent.modules.values():
        fixed = module.a if factor is Factor.B else module.b
        if np.linalg.cond(fixed.astype(np.float64) @ fixed.T if factor is Factor.B else fixed.T @ fixed) < 1e4:
            tensor = module.tensor_name(factor)
            np.testing.assert_allclose(back[tensor], delta[tensor], atol=1e-3)


@pytest.mark.parametrize("factor", [Factor.A, Factor.B])
def test_what_is_hidden_where_the_fixed_factor_is_blind_is_removed(factor: Factor) -> None:
    rng = np.random.default_rng(1)
    parent = build(rng, {"q": (8, 7, 4)})
    module = parent.modules["q"]
    module.a[3] = module.a[2]
    module.b[:, 3] = module.b[:, 2]
    honest, blind = update(rng, parent, factor), np.array([0, 0, 1, -1], np.float32)
    name = module.tensor_name(factor)
    hidden = 100 * rng.normal(size=(8 if factor is Factor.B else 7, 1)).astype(np.float32) * blind
    hidden = hidden if factor is Factor.B else hidden.T
    whitening = Whitening.of(parent, factor)
    before, after = whitening.norms(honest)["q"], whitening.norms({name: honest[name] + hidden})["q"]
    assert after == pytest.approx(before, rel=1e-5)
    left = whitening.unwhiten(whitening.whiten({name: honest[name] + hidden}))[name]
    inside = left @ blind if factor is Factor.B else blind @ left
    np.testing.assert_allclose(inside, 0, atol=1e-3)
    np.testing.assert_allclose(changes(parent, [{name: left}]), changes(parent, [honest]), atol=1e-3)


def test_rows_of_length_one_need_no_whitening() -> None:
    rng = np.random.default_rng(2)
    parent = build(rng, {"q": (8, 16, 4)}, lora_alpha=4)
    parent.modules["q"].a[:] = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    delta = update(rng, parent, Factor.B)
    x = Whitening.of(parent, Factor.B).whiten(delta)["q.lora_B.weight"]
    np.testing.assert_allclose(x, delta["q.lora_B.weight"], rtol=1e-5, atol=1e-6)


def test_whitening_is_the_same_every_time_and_in_blocks() -> None:
    rng = np.random.default_rng(3)
    parent = build(rng, {"q": (50_000, 40_000, 3)})
    for factor in (Factor.A, Factor.B):
        delta = update(rng, parent, factor)
        first, second = (Whitening.of(parent, factor).whiten(delta) for _ in range(2))
        name = f"q.lora_{factor}.weight"
        assert first[name].tobytes() == second[name].tobytes()
        assert first[name].dtype == np.float32
        assert math.hypot(*Whitening.of(parent, factor).norms(delta).values()) == pytest.approx(
            float(np.linalg.norm(first[name].astype(np.float64))), rel=1e-6
        )


def test_half_precision_is_widened() -> None:
    rng = np.random.default_rng(4)
    parent = build(rng, {"q": (6, 5, 2)})
    delta = {n: t.astype(ml_dtypes.bfloat16) for n, t in update(rng, parent, Factor.B).items()}
    wide = {n: t.astype(np.float32) for n, t in delta.items()}
    whitening = Whitening.of(parent, Factor.B)
    assert whitening.norms(delta) == whitening.norms(wide)
    np.testing.assert_array_equal(whitening.whiten(delta)["q.lora_B.weight"], whitening.whiten(wide)["q.lora_B.weight"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_norms_of_extreme_values(value: float) -> None:
    parent = build(np.random.default_rng(5), {"q": (6, 5, 2)})
    norm = Whitening.of(parent, Factor.B).norms({"q.lora_B.weight": np.full((6, 2), value, np.float32)})["q"]
    assert math.isfinite(norm) == (value == 3e38)


def test_a_module_of_zeros_takes_no_update() -> None:
    rng = np.random.default_rng(6)
    parent = build(rng, {"q": (6, 5, 2), "v": (6, 5, 2)})
    parent.modules["v"].b[:] = 0
    whitening = Whitening.of(parent, Factor.A)
    delta = update(rng, parent, Factor.A)
    assert whitening.norms(delta)["v"] == 0
    assert not whitening.unwhiten(whitening.whiten(delta))["v.lora_A.weight"].any()


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (Factor.A, "training factor A changes nothing while B is zero in every module; set recipe.trainFactor to B"),
        (Factor.BOTH, "whitening needs a fixed factor"),
    ],
)
def test_what_cannot_be_whitened(factor: Factor, says: str) -> None:
    parent = build(np.random.default_rng(7), {"q": (6, 5, 2)}, zero_b=True)
    with pytest.raises(LoraError, match=says):
        Whitening.of(parent, factor)


def test_another_shape_is_refused() -> None:
    rng = np.random.default_rng(8)
    parent = build(rng, {"q": (6, 5, 3)})
    whitening = Whitening.of(parent, Factor.B)
    for call in (whitening.whiten, whitening.unwhiten, whitening.norms):
        with pytest.raises(LoraError, match=r"has shape \[6, 2\], the parent's has \[6, 3\]; pad the update"):
            call(update(rng, parent, Factor.B, rank=2))
        with pytest.raises(LoraError, match=r"missing: q.lora_B.weight; foreign: q.lora_A.weight"):
            call(update(rng, parent, Factor.A))
