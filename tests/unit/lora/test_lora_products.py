"""Norms and inner products where both factors are trained, against the dense weight changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import (
    Adapter,
    LoraError,
    product_gram,
    product_norms,
)
from tests.unit.lora.adapters import build, by_module, changes, parents, update, weights

Drawn = tuple[Adapter, np.random.Generator]
_sizes = st.sampled_from([1e-3, 1.0, 1e3])


@given(parents(), _sizes)
def test_norms_are_those_of_the_weight_change(drawn: Drawn, size: float) -> None:
    parent, rng = drawn
    delta = update(rng, parent, Factor.BOTH, size)
    before, after = by_module(parent), by_module(parent, delta)
    for name, norm in product_norms(delta, parent).items():
        assert norm == pytest.approx(np.linalg.norm(after[name] - before[name]), rel=1e-9, abs=1e-12)


@given(parents(), st.integers(1, 6), _sizes)
def test_inner_products_and_distances_are_those_of_the_weight_changes(drawn: Drawn, n: int, size: float) -> None:
    parent, rng = drawn
    updates = [update(rng, parent, Factor.BOTH, size) for _ in range(n)]
    exact = changes(parent, updates)
    inner, distances2 = product_gram(updates, parent)
    np.testing.assert_allclose(inner, exact @ exact.T, atol=1e-9 * np.square(exact).sum(axis=1).max())
    wanted = np.square(exact[:, None] - exact[None]).sum(axis=-1)
    np.testing.assert_allclose(distances2, wanted, atol=1e-9 * wanted.max() + 1e-20)
    assert np.array_equal(inner, inner.T)
    assert np.array_equal(distances2, distances2.T)
    assert not distances2.diagonal().any()


def test_distances_of_near_copies_far_from_the_parent_do_not_cancel() -> None:
    rng = np.random.default_rng(0)
    parent = build(rng, {"q": (40, 30, 4)})
    common = {n: 100 * t for n, t in update(rng, parent, Factor.BOTH).items()}
    # The steps are representable beside the common part, so that the reference is exact too.
    steps = [{n: np.round(t * 64) / 2**17 for n, t in update(rng, parent, Factor.BOTH).items()} for _ in range(4)]
    updates = [{n: common[n].astype(np.float64) + step[n] for n in common} for step in steps]
    updates.append({n: 1e6 * t for n, t in update(rng, parent, Factor.BOTH).items()})
    a0, b0 = (parent.modules["q"].factor(f).astype(np.float64) for f in (Factor.A, Factor.B))
    scale = parent.modules["q"].scale
    _, distances2 = product_gram(updates, parent)
    for i in range(4):
        for j in range(4):
            db = updates[i]["q.lora_B.weight"] - updates[j]["q.lora_B.weight"]
            da = updates[i]["q.lora_A.weight"] - updates[j]["q.lora_A.weight"]
            exact = scale * (db @ (a0 + updates[i]["q.lora_A.weight"]) + (b0 + updates[j]["q.lora_B.weight"]) @ da)
            assert distances2[i, j] == pytest.approx(np.square(exact).sum(), rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-2, 1.0, 1e4]))
def test_a_change_of_gauge_is_no_change(seed: int, size: float) -> None:
    # (B·G, G⁻¹·A) is the same weight: neither norm nor direction can be hidden in the factors, nor invented.
    rng = np.random.default_rng(seed)
    parent = build(rng, {"q": (9, 8, 3)})
    a, b = (parent.modules["q"].factor(f).astype(np.float64) for f in (Factor.A, Factor.B))
    gauge = size * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    still = {"q.lora_B.weight": b @ gauge - b, "q.lora_A.weight": np.linalg.inv(gauge) @ a - a}
    norm = float(np.linalg.norm(weights(parent)))
    assert product_norms(still, parent)["q"] <= 1e-9 * norm * max(size, 1 / size)
    delta = update(rng, parent, Factor.BOTH)
    turned = {
        "q.lora_B.weight": (b + delta["q.lora_B.weight"]) @ gauge - b,
        "q.lora_A.weight": np.linalg.inv(gauge) @ (a + delta["q.lora_A.weight"]) - a,
    }
    inner, distances2 = product_gram([delta, turned], parent)
    exact = product_norms(delta, parent)["q"] ** 2
    np.testing.assert_allclose(inner, exact, rtol=1e-6 * max(size, 1 / size))
    assert distances2[0, 1] <= 1e-6 * exact * max(size, 1 / size)


def test_an_update_that_cannot_be_used_is_named() -> None:
    rng = np.random.default_rng(4)
    parent = build(rng, {"q": (9, 8, 3)})
    good, short = update(rng, parent, Factor.BOTH), update(rng, parent, Factor.BOTH, rank=2)
    with pytest.raises(
        LoraError, match=r"update 1: q.lora_A.weight has shape \[2, 8\], the parent's has \[3, 8\]; pad"
    ):
        product_gram([good, short], parent)
    with pytest.raises(
        LoraError, match=r"update 1: the update must have the parent's tensors of factor Both: 1 .*; missing: q.lora_A"
    ):
        product_gram([good, update(rng, parent, Factor.B)], parent)
    bad = {name: np.where(np.isfinite(t) & (t != t.max()), t, np.nan) for name, t in good.items()}
    with pytest.raises(LoraError, match=r"update 1: q.lora_\w.weight has a value that is not finite"):
        product_gram([good, bad], parent)
    with pytest.raises(LoraError, match="there is no update"):
        product_gram([], parent)
