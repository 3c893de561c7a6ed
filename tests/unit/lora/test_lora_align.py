"""Adapters of any ranks and scales as updates of one parent: each still makes the weight change that it made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import Adapter, Whitening, align, product_gram, svd_mean
from concordat.protocol.adapter_config import LoraConfig
from tests.unit.lora.adapters import build, made, weights

SIZES = {"q": (9, 7), "v": (5, 8)}


def _adapters(rng: np.random.Generator, n: int, held: Factor | None) -> list[Adapter]:
    """n adapters of random ranks and scales; with `held`, that factor is the first components of one for all."""
    whole = build(rng, {name: (d, k, 5) for name, (d, k) in SIZES.items()})
    out = []
    for _ in range(n):
        ranks = {name: int(rng.integers(1, 6)) for name in SIZES}
        one = build(rng, {name: (d, k, ranks[name]) for name, (d, k) in SIZES.items()})
        for name, module in one.modules.items():
            top = whole.modules[name]
            if held is Factor.A:
                module = replace(module, a=top.a[: module.rank])
            elif held is Factor.B:
                module = replace(module, b=top.b[:, : module.rank])
            one.modules[name] = replace(module, scale=float(rng.choice([0.5, 1.0, 3.0])))
        out.append(one)
    return out


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([None, Factor.A, Factor.B]), st.booleans())
def test_every_product_stays_and_so_does_their_mean(seed: int, n: int, held: Factor | None, with_parent: bool) -> None:
    rng = np.random.default_rng(seed)
    everyone = _adapters(rng, n + with_parent, held)
    adapters, parent = everyone[:n], everyone[n] if with_parent else None
    ranks = {name: max(one.modules[name].rank for one in everyone) for name in SIZES}
    output = LoraConfig({"r": 1, "lora_alpha": 7, "rank_pattern": ranks})
    aligned = align(adapters, output, parent)
    assert aligned.ranks == ranks
    assert {m.scale for m in aligned.parent.modules.values()} == {7 / rank for rank in ranks.values()}
    before = weights(parent) if parent is not None else np.zeros_like(weights(adapters[0]))
    np.testing.assert_allclose(weights(aligned.parent), before, atol=1e-4)
    for one, update in zip(adapters, aligned.updates, strict=True):
        np.testing.assert_allclose(weights(aligned.parent, update), weights(one), atol=1e-4)
    inner, _ = product_gram(aligned.updates, aligned.parent)
    changes = np.stack([weights(one) - before for one in adapters])
    np.testing.assert_allclose(inner, changes @ changes.T, atol=1e-2)
    wanted = np.mean([weights(one) for one in adapters], axis=0)
    if held is not None and len(everyone) > 1:
        assert aligned.factor is (Factor.B if held is Factor.A else Factor.A)
        whitening = Whitening.of(aligned.parent, aligned.factor)
        mark = f".lora_{aligned.factor.value}."
        x = [whitening.whiten({k: t for k, t in u.items() if mark in k}) for u in aligned.updates]
        mean = whitening.unwhiten({name: np.mean([y[name] for y in x], axis=0) for name in x[0]})
        np.testing.assert_allclose(weights(aligned.parent, mean), wanted, atol=1e-4)
    full = svd_mean(aligned.updates, [1 / n] * n, aligned.parent, dict.fromkeys(SIZES, 9))
    np.testing.assert_allclose(made(aligned.parent, full.tensors), wanted, atol=1e-4)


@pytest.mark.parametrize("held", [Factor.A, Factor.B])
def test_one_factor_is_not_enough_for_an_output_of_another_rank(held: Factor) -> None:
    adapters = _adapters(np.random.default_rng(0), 3, held)
    ranks = {name: max(one.modules[name].rank for one in adapters) for name in SIZES}
    for more, whole in ((0, False), (1, True), (-1, True)):
        output = LoraConfig({"lora_alpha": 1, "rank_pattern": {name: rank + more for name, rank in ranks.items()}})
        assert (align(adapters, output).factor is Factor.BOTH) is whole


def test_a_factor_that_is_zero_in_all_carries_nothing() -> None:
    rng = np.random.default_rng(0)
    untrained = [build(rng, {name: (d, k, 2) for name, (d, k) in SIZES.items()}, zero_b=True) for _ in range(2)]
    aligned = align(untrained, LoraConfig({"r": 2, "lora_alpha": 1}))
    assert aligned.factor is Factor.BOTH
    assert not made(aligned.parent, svd_mean(aligned.updates, [0.5, 0.5], aligned.parent).tensors).any()
