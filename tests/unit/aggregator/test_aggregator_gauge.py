"""The gauge of the candidate: which factor of which LoRA mode is orthonormal, and what that bounds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora import Adapter, Whitening, orthonormal, read_adapter
from concordat.tensors import Named, Tensors
from concordat_aggregator.both_factors import method_of
from concordat_aggregator.inputs import Parent, RequestError, check_finite
from tests.support.contracts import IMAGE, contract
from tests.unit.lora.adapters import build, changes, made, update, weights

CONFIG: dict[str, Any] = {"r": 3, "lora_alpha": 3}
PLAIN = {"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0}
SHAPES = {"q": (12, 10, 3), "v": (8, 12, 3)}


def combined(
    folder: Path, parent: Adapter, factor: Factor, sent: list[Named], policy: dict[str, Any]
) -> tuple[Tensors, float]:
    """The candidate, and the norm that is reported."""
    policy = {"lora": "Svd" if factor is Factor.BOTH else "Alternating", **policy}
    described = contract(recipe={"image": IMAGE, "trainFactor": factor.value}, aggregation=policy)
    method = method_of(described, Parent(parent.tensors(), b'{"r": 3, "lora_alpha": 3}', parent), folder)
    sites = [f"site-{number}" for number in range(len(sent))]
    for site, delta in zip(sites, sent, strict=True):
        method.admit(site, method.measure(delta)[0])
    products = method.compare(sites, [])[0]
    result = method.combine(sites, policy["maxFaultySites"], products, reference=None)
    return result.candidate, result.norm


def scaled_to(delta: Named, norm: float, whitening: Whitening) -> Named:
    """The update, scaled to a weight change of this norm."""
    share = norm / math.hypot(*whitening.norms(delta).values())
    return {name: (tensor * share).astype(np.float32) for name, tensor in delta.items()}


def weakest(parent: Adapter, factor: Factor, along: dict[str, NDArray[Any]]) -> Named:
    """An update along what the fixed factor passes least: a long change of the factor, a short one of the weights."""
    out: dict[str, NDArray[Any]] = {}
    for module in parent.modules.values():
        fixed = module.a if factor is Factor.B else module.b.T
        direction = np.linalg.eigh(fixed.astype(np.float64) @ fixed.T)[1][:, 0]
        direction *= np.sign(direction[np.abs(direction).argmax()])
        delta = np.outer(direction, along[module.tensor_name(factor)])
        out[module.tensor_name(factor)] = delta.T if factor is Factor.B else delta
    return out


def test_hostile_updates_along_a_weak_direction_cannot_make_a_factor_grow(tmp_path: Path) -> None:
    """Engine review, finding F8: three of ten sites, each round an update of median norm along the weakest direction of
    the fixed factor, which nothing rejects. After twelve rounds the lengths of the factors had come to a product ten
    times as long as that of the weights.
    """
    rng = np.random.default_rng(0)
    parent = build(rng, SHAPES, rank_pattern={}, **CONFIG)
    for module in parent.modules.values():
        # A component that hardly any site has trained yet.
        module.a[-1] *= 0.02
        module.b[:, -1] *= 0.02
    along = {name: rng.normal(size=max(tensor.shape)) for name, tensor in parent.tensors().items()}
    for number in range(12):
        factor = Factor.A if number % 2 else Factor.B
        whitening = Whitening.of(parent, factor)
        honest = [scaled_to(update(rng, parent, factor), 1.0, whitening) for _ in range(7)]
        hostile = [scaled_to(weakest(parent, factor, along), 1.0, whitening)] * 3
        policy = {"rule": "TrimmedMean", "preAggregation": "NNM", "maxFaultySites": 3}
        candidate, norm = combined(tmp_path / str(number), parent, factor, [*hostile, *honest], policy)
        assert norm <= 1
        parent = read_adapter(candidate, CONFIG)
    for module in parent.modules.values():
        product = float(np.linalg.norm(module.b.astype(np.float64) @ module.a))
        # By Cauchy and Schwarz at least 1; √r where one of the two is orthonormal.
        assert np.linalg.norm(module.a) * np.linalg.norm(module.b) / product <= math.sqrt(3) * 1.001, module.name


@pytest.mark.parametrize("factor", [Factor.A, Factor.B])
def test_alternating_makes_the_trained_factor_orthonormal(tmp_path: Path, factor: Factor) -> None:
    """It is the one that the next round holds fixed. The weights are the parent's and the mean of the changes."""
    rng = np.random.default_rng(1)
    parent = build(rng, SHAPES, rank_pattern={}, **CONFIG)
    sent: list[Named] = [update(rng, parent, factor, 0.1) for _ in range(4)]
    candidate, norm = combined(tmp_path, parent, factor, sent, PLAIN)
    mean = changes(parent, sent).mean(axis=0)
    np.testing.assert_allclose(made(parent, candidate), weights(parent) + mean, atol=1e-5)
    assert norm == pytest.approx(float(np.linalg.norm(mean)), rel=1e-5)
    for module in parent.modules.values():
        tensor = candidate[module.tensor_name(factor)].astype(np.float64)
        rows = tensor if factor is Factor.A else tensor.T
        np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-6)


def test_frozen_a_never_changes_a(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    parent = build(rng, SHAPES, rank_pattern={}, **CONFIG)
    sent: list[Named] = [update(rng, parent, Factor.B, 0.1) for _ in range(4)]
    candidate, _ = combined(tmp_path, parent, Factor.B, sent, {**PLAIN, "lora": "FrozenA"})
    for module in parent.modules.values():
        name = module.tensor_name(Factor.A)
        assert candidate[name].tobytes() == module.a.tobytes()


def test_svd_shares_the_singular_values_between_the_factors(tmp_path: Path) -> None:
    """Both are trained, none is held fixed: they are equally long, and so learn equally fast."""
    rng = np.random.default_rng(3)
    parent = build(rng, SHAPES, rank_pattern={}, **CONFIG)
    candidate, _ = combined(tmp_path, parent, Factor.BOTH, [update(rng, parent, Factor.BOTH, 0.01)] * 4, PLAIN)
    for module in parent.modules.values():
        a, b = (candidate[module.tensor_name(factor)].astype(np.float64) for factor in (Factor.A, Factor.B))
        np.testing.assert_allclose(a @ a.T, b.T @ b, atol=1e-4)


def test_a_parent_in_any_gauge_gives_one_candidate(tmp_path: Path) -> None:
    """A first adapter as peft makes it, or one that people trained: what counts is the product."""
    rng = np.random.default_rng(4)
    parent = build(rng, SHAPES, rank_pattern={}, **CONFIG)
    again = read_adapter(orthonormal(parent, Factor.A), CONFIG)
    sent: list[Named] = [update(rng, parent, Factor.B, 0.1) for _ in range(3)]
    same: list[Named] = [
        {
            name: (tensor @ module.a @ again.modules[module.name].a.T).astype(np.float32)
            for module in parent.modules.values()
            for name, tensor in [(module.tensor_name(Factor.B), delta[module.tensor_name(Factor.B)])]
        }
        for delta in sent
    ]
    first, _ = combined(tmp_path / "a", parent, Factor.B, sent, PLAIN)
    second, _ = combined(tmp_path / "b", again, Factor.B, same, PLAIN)
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=1e-4)


@pytest.mark.parametrize(("a", "b", "delta"), [(1e-9, 3e38, 3e38), (1e30, 1e30, 1e-30)])
def test_a_candidate_that_float32_cannot_hold_is_an_error_of_the_hub(
    tmp_path: Path, a: float, b: float, delta: float
) -> None:
    """Parent and aggregate add up to too much, or their product is too large to be written in the new gauge."""
    parent = build(np.random.default_rng(5), SHAPES, rank_pattern={}, **CONFIG)
    for module in parent.modules.values():
        module.a[:], module.b[:] = a * module.a, b
    sent: list[Named] = [{m.tensor_name(Factor.B): np.full_like(m.b, delta) for m in parent.modules.values()}]
    with pytest.raises(RequestError, match="not finite"):
        check_finite(combined(tmp_path, parent, Factor.B, sent, PLAIN)[0])
