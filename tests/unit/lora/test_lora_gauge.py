"""The gauge in which an adapter is published: the weights as they were, the fixed factor orthonormal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import Adapter, Module, Whitening, orthonormal
from concordat.tensors import Tensors
from tests.unit.lora.adapters import Dense, build, made, parents, update, weights

_one = st.sampled_from([Factor.A, Factor.B])
Drawn = tuple[Adapter, np.random.Generator]


def _rows(module: Module, factor: Factor, tensors: Tensors) -> Dense:
    """The factor with its r components as rows."""
    tensor = tensors[module.tensor_name(factor)].astype(np.float64)
    return tensor if factor is Factor.A else tensor.T


@given(parents(), _one)
def test_the_weights_stay_and_the_fixed_factor_is_orthonormal(drawn: Drawn, fixed: Factor) -> None:
    adapter, _ = drawn
    tensors = orthonormal(adapter, fixed)
    wanted = weights(adapter)
    np.testing.assert_allclose(made(adapter, tensors), wanted, atol=1e-5 * np.abs(wanted).max())
    for module in adapter.modules.values():
        rows = _rows(module, fixed, tensors)
        ones = np.zeros(module.rank)
        ones[: rows.shape[1]] = 1
        np.testing.assert_allclose(rows @ rows.T, np.diag(ones), atol=1e-6)


@given(parents(), _one, st.integers(1, 6))
def test_the_first_components_are_the_best_adapter_of_their_rank(drawn: Drawn, fixed: Factor, rank: int) -> None:
    adapter, _ = drawn
    tensors = orthonormal(adapter, fixed)
    for module in adapter.modules.values():
        a, b = (_rows(module, factor, tensors) for factor in (Factor.A, Factor.B))
        whole = module.b.astype(np.float64) @ module.a
        lost = np.linalg.norm(whole - b[:rank].T @ a[:rank])
        least = np.linalg.norm(np.linalg.svd(whole, compute_uv=False)[rank:])
        assert lost == pytest.approx(least, abs=1e-5 * float(np.linalg.norm(whole)))


@pytest.mark.parametrize("fixed", [Factor.A, Factor.B])
@pytest.mark.parametrize("present", [0, 1, 2])
def test_components_of_nothing_can_still_learn(fixed: Factor, present: int) -> None:
    """B as in the first adapter, or trained by sites of lower rank: the others are completed, none is stuck at zero."""
    rng = np.random.default_rng(0)
    adapter = build(rng, {"q": (8, 9, 4)})
    adapter.modules["q"].b[:, present:] = 0
    tensors = orthonormal(adapter, fixed)
    module = adapter.modules["q"]
    rows = _rows(module, fixed, tensors)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-6)
    if fixed is Factor.A:
        # Completed within what A held, not with directions from nowhere.
        own = np.linalg.qr(module.a.T.astype(np.float64))[0]
        np.testing.assert_allclose(rows @ own @ own.T, rows, atol=1e-6)


@pytest.mark.parametrize("fixed", [Factor.A, Factor.B])
def test_one_adapter_has_one_gauge(fixed: Factor) -> None:
    """Whatever factors the product came in: signs and order are settled, and the bits repeat."""
    rng = np.random.default_rng(1)
    adapter = build(rng, {"q": (8, 9, 3)})
    module, mix = adapter.modules["q"], np.array([[0, -3, 0], [1, 0, 0.5], [0, 0, -0.1]])
    other = Adapter({"q": Module("q", np.linalg.inv(mix) @ module.a, module.b @ mix, module.scale)})
    tensors = orthonormal(adapter, fixed)
    for name, tensor in orthonormal(other, fixed).items():
        np.testing.assert_allclose(tensor, tensors[name], atol=1e-5)
        assert tensor.dtype == np.float32
    assert {n: t.tobytes() for n, t in orthonormal(adapter, fixed).items()} == {
        n: t.tobytes() for n, t in tensors.items()
    }


@given(parents(), _one)
def test_where_the_fixed_factor_is_orthonormal_an_update_is_as_long_as_its_factor(drawn: Drawn, factor: Factor) -> None:
    adapter, rng = drawn
    fixed = Factor.A if factor is Factor.B else Factor.B
    tensors = orthonormal(adapter, fixed)
    parent = Adapter(
        {
            name: Module(name, tensors[m.tensor_name(Factor.A)], tensors[m.tensor_name(Factor.B)], m.scale)
            for name, m in adapter.modules.items()
        }
    )
    delta = update(rng, parent, factor)
    for name, norm in Whitening.of(parent, factor).norms(delta).items():
        module = parent.modules[name]
        seen = module.a.shape[1] if fixed is Factor.A else module.b.shape[0]
        tensor = delta[module.tensor_name(factor)]
        inside = (tensor.T if factor is Factor.B else tensor)[:seen]
        assert norm == pytest.approx(module.scale * float(np.linalg.norm(inside)), rel=1e-5)
