"""What is read as an adapter, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora import LoraError, read_adapter
from concordat.tensors import FormError, pad
from tests.unit.lora.adapters import build, changes, update

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "bias": "none", "init_lora_weights": True}
A, B = "model.q.lora_A.weight", "model.q.lora_B.weight"
GOOD = {A: np.ones((2, 5), np.float32), B: np.ones((3, 2), np.float32)}


def test_modules_come_sorted_with_their_scaling() -> None:
    more = {"model.a.lora_A.weight": GOOD[A], "model.a.lora_B.weight": GOOD[B]}
    adapter = read_adapter(GOOD | more, CONFIG)
    assert list(adapter.modules) == ["model.a", "model.q"]
    module = adapter.modules["model.q"]
    assert (module.name, module.rank, module.scale) == ("model.q", 2, 4.0)
    assert module.a is GOOD[A]
    assert module.b is GOOD[B]


@pytest.mark.parametrize(
    ("change", "scale"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"r": 7, "rank_pattern": {"q": 2}}, 4.0),
        ({"alpha_pattern": {"model.q": 6}}, 3.0),
        ({"alpha_pattern": {"^model.q": 6}}, 3.0),
        ({"alpha_pattern": {r"model\.q": 6}}, 3.0),
        ({"alpha_pattern": {"odel.q": 6}}, 4.0),
        ({"alpha_pattern": {"^q": 6}}, 4.0),
        ({"alpha_pattern": {"model": 6}}, 4.0),
        ({"alpha_pattern": {"k": 5, "q": 6, "model.q": 7}}, 3.0),
        ({"rank_pattern": None, "alpha_pattern": None, "modules_to_save": None, "loftq_config": {}}, 4.0),
    ],
)
def test_the_scaling_by_the_configuration(change: dict[str, Any], scale: float) -> None:
    assert read_adapter(GOOD, CONFIG | change).modules["model.q"].scale == scale


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; it must be 'LORA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"use_dora": True}, "use_dora is True; only plain LoRA can be averaged, leave it out"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"r": 3}, "the rank by adapter_config.json is 3; correct r or rank_pattern"),
        ({"rank_pattern": {"q": 4}}, "A is \\[2, 5\\] and B is \\[3, 2\\], but the rank by adapter_config.json is 4"),
        ({"r": True}, "r is True; it must be a positive number"),
        ({"r": 2.0}, "must be a whole number"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"alpha_pattern": {"q": None}}, "alpha_pattern of q is None"),
        ({"alpha_pattern": {"(a+)+": 1}}, r"alpha_pattern has the key \(a\+\)\+; write a plain module name"),
    ],
)
def test_a_configuration_that_is_not_plain_lora(change: dict[str, Any], says: str) -> None:
    with pytest.raises(LoraError, match=says):
        read_adapter(GOOD, CONFIG | change)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "no LoRA tensor"),
        ({A: GOOD[A]}, "model.q has no lora_B.weight"),
        ({B: GOOD[B]}, "model.q has no lora_A.weight"),
        (GOOD | {"wte.lora_embedding_A": GOOD[A]}, "wte.lora_embedding_A is an embedding; only plain LoRA"),
        (GOOD | {"model.q.lora_magnitude_vector": GOOD[A]}, "is DoRA"),
        (GOOD | {"model.q.lora_B.bias": GOOD[A]}, "is a bias"),
        (GOOD | {"head.weight": GOOD[A]}, "head.weight is no LoRA factor"),
        (GOOD | {A: np.ones((2, 5, 3, 3), np.float32)}, r"has shape \[2, 5, 3, 3\]; only linear layers"),
        (GOOD | {B: np.ones((3, 4), np.float32)}, r"B is \[3, 4\], but the rank"),
        (GOOD | {B: np.full((3, 2), np.nan, np.float32)}, "model.q.lora_B.weight has a value that is not finite"),
        (GOOD | {"\x1b[31m": GOOD[A]}, r"\\x1b\[31m is no LoRA factor"),
    ],
)
def test_tensors_that_are_not_plain_lora(tensors: dict[str, NDArray[Any]], says: str) -> None:
    with pytest.raises(LoraError, match=says):
        read_adapter(tensors, CONFIG)


@pytest.mark.parametrize("factor", list(Factor))
def test_padding_changes_nothing_but_the_shape(factor: Factor) -> None:
    rng = np.random.default_rng(0)
    parent = build(rng, {"q": (6, 5, 4), "v": (7, 3, 3)})
    delta = update(rng, parent, factor, rank=2)
    padded = pad(delta, parent.tensors(), factor)
    for name, tensor in padded.items():
        small = delta[name]
        np.testing.assert_array_equal(tensor[: small.shape[0], : small.shape[1]], small)
        assert np.count_nonzero(tensor) == small.size
    # A site of rank 2 keeps the parent's other components in its frozen weights and trains the first two.
    for name, module in parent.modules.items():
        a = module.a[:2].astype(np.float64) + delta.get(f"{name}.lora_A.weight", 0)
        b = module.b[:, :2].astype(np.float64) + delta.get(f"{name}.lora_B.weight", 0)
        site = module.scale * (module.b[:, 2:].astype(np.float64) @ module.a[2:] + b @ a)
        padded_a = module.a.astype(np.float64) + padded.get(f"{name}.lora_A.weight", 0)
        padded_b = module.b.astype(np.float64) + padded.get(f"{name}.lora_B.weight", 0)
        np.testing.assert_allclose(module.scale * padded_b @ padded_a, site, rtol=1e-12, atol=1e-12)
    assert changes(parent, [padded]).any()


def test_a_full_update_is_padded_with_nothing() -> None:
    rng = np.random.default_rng(0)
    parent = build(rng, {"q": (6, 5, 4)})
    delta = update(rng, parent, Factor.BOTH)
    for name, tensor in pad(delta, parent.tensors(), Factor.BOTH).items():
        np.testing.assert_array_equal(tensor, delta[name])


@pytest.mark.parametrize(
    ("delta", "factor", "says"),
    [
        (
            {A: np.ones((3, 5))},
            Factor.A,
            "lora_A.weight has rank 3, above the contract's 2; train at most 2 components",
        ),
        ({B: np.ones((3, 9))}, Factor.B, "has rank 9, above the contract's 2"),
        ({A: np.ones((2, 4))}, Factor.A, r"has shape \[2, 4\], which is no slice of the parent's \[2, 5\]"),
        ({B: np.ones((3,))}, Factor.B, r"has shape \[3\], which is no slice"),
        (
            {B: np.ones((3, 1))},
            Factor.A,
            "1 tensors, expected 1; missing: model.q.lora_A.weight; foreign: model.q.lora_B",
        ),
        ({A: np.ones((1, 5))}, Factor.BOTH, "1 tensors, expected 2; missing: model.q.lora_B.weight; foreign: none"),
    ],
)
def test_a_slice_that_does_not_fit(delta: dict[str, NDArray[Any]], factor: Factor, says: str) -> None:
    with pytest.raises(FormError, match=says):
        pad(delta, GOOD, factor)


def test_nothing_here_imports_torch() -> None:
    code = "import sys, concordat.lora; sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
