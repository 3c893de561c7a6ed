"""Clipping before signing: what is sent is within the contract's ceiling, in the norms that the hub measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import Adapter, Ceiling, LoraError, Module
from concordat.screening import Limits, check_norms


def parent(seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    shapes = {"m.k": (6, 3, 5), "m.q": (4, 2, 7)}
    return Adapter(
        {
            name: Module(name, rng.normal(size=(r, k)).astype(np.float32), rng.normal(size=(d, r)).astype("f4"), 2.0)
            for name, (d, r, k) in shapes.items()
        }
    )


def delta(factor: Factor, size: float, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    factors = (Factor.A, Factor.B) if factor is Factor.BOTH else (factor,)
    return {
        m.tensor_name(f): (size * rng.normal(size=m.factor(f).shape)).astype(np.float32)
        for m in parent().modules.values()
        for f in factors
    }


@given(
    st.sampled_from(list(Factor)),
    st.floats(-3, 12).map(lambda e: 10.0**e),
    st.integers(0, 99),
    st.none() | st.floats(0.01, 1),
)
def test_what_is_sent_passes_the_hubs_own_check(factor: Factor, size: float, seed: int, share: float | None) -> None:
    ceiling = Ceiling(parent(), factor, 1.0, share)
    given_ = delta(factor, size, seed)
    out, norm, cut = ceiling.clip(given_)
    assert check_norms(ceiling.norms(out), Limits(1.0, share)) == pytest.approx(norm)
    before = ceiling.norms(given_)
    fits = math.hypot(*before.values()) <= 1 and all(share is None or n <= share for n in before.values())
    assert cut is not fits
    if fits:
        assert all(np.array_equal(out[name], given_[name]) for name in given_)


def test_one_long_module_is_cut_by_itself() -> None:
    given_ = delta(Factor.B, 0.01, 1)
    given_["m.q.lora_B.weight"] *= 1000
    ceiling = Ceiling(parent(), Factor.B, 100.0, 1.0)
    out, _, cut = ceiling.clip(given_)
    assert cut
    assert np.array_equal(out["m.k.lora_B.weight"], given_["m.k.lora_B.weight"])
    assert ceiling.norms(out)["m.q"] == pytest.approx(1)


def test_a_factor_that_can_change_nothing_is_told() -> None:
    flat = Adapter({n: Module(n, m.a, np.zeros_like(m.b), m.scale) for n, m in parent().modules.items()})
    with pytest.raises(LoraError, match=r"set recipe\.trainFactor to B"):
        Ceiling(flat, Factor.A, 1.0).clip(delta(Factor.A, 1, 1))
