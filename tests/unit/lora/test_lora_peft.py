"""The weight change is the one that peft makes, in a network, before and after averaging."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora import Adapter, Whitening, product_norms, read_adapter, svd_mean, svd_trimmed
from concordat.tensors import pad
from tests.unit.lora.adapters import update

# Keys that match no module are tested too.
pytestmark = [
    pytest.mark.xdist_group("torch"),
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys did not match"),
]

Dense = NDArray[np.float64]


class Site:
    """A network of two linear layers and one that is not adapted, with random factors."""

    def __init__(self, **settings: Any) -> None:
        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        network = torch.nn.ModuleDict(
            {
                "first": torch.nn.Linear(7, 9),
                "inner": torch.nn.ModuleDict({"first": torch.nn.Linear(9, 6), "last": torch.nn.Linear(6, 5)}),
                "head": torch.nn.Linear(5, 3),
            }
        )
        self.config = LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": ["first", "last"]} | settings))
        self.model: Any = get_peft_model(copy.deepcopy(network), self.config)
        rng = np.random.default_rng(0)
        self.load({name: rng.normal(size=t.shape).astype(np.float32) for name, t in self.tensors().items()})

    def tensors(self) -> dict[str, NDArray[Any]]:
        from peft import get_peft_model_state_dict

        return {name: t.numpy().copy() for name, t in get_peft_model_state_dict(self.model).items()}

    def adapter(self) -> Adapter:
        return read_adapter(self.tensors(), self.config.to_dict())

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        import torch
        from peft import set_peft_model_state_dict

        result = set_peft_model_state_dict(self.model, {name: torch.from_numpy(t) for name, t in tensors.items()})
        assert not result.unexpected_keys

    def change(self, tensors: dict[str, NDArray[Any]] | None = None) -> Dense:
        """What peft adds to the weights of all layers, flat; with these tensors in place of the adapter's."""
        kept = self.tensors()
        self.load(kept | (tensors or {}))
        layers = [m for _, m in sorted(self.model.named_modules()) if hasattr(m, "get_delta_weight")]
        change = [layer.get_delta_weight("default").detach().double().numpy().ravel() for layer in layers]
        self.load(kept)
        return np.concatenate(change)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"use_rslora": True},
    {"r": 2, "lora_alpha": 1},
    {"rank_pattern": {"inner.first": 3, "first": 2}, "alpha_pattern": {"last": 5}},
    {"rank_pattern": {"first": 2}, "alpha_pattern": {"^first": 9}, "use_rslora": True},
    {"alpha_pattern": {"irst": 9, "nner.first": 2, "inner": 3}},
]


@pytest.fixture(params=SETTINGS, ids=str)
def site(request: pytest.FixtureRequest) -> Site:
    return Site(**request.param)


def test_the_weight_change_of_an_adapter(site: Site) -> None:
    modules = site.adapter().modules
    ours = np.concatenate([m.scale * m.b.astype(np.float64).dot(m.a).ravel() for m in modules.values()])
    assert len(modules) == 3
    np.testing.assert_allclose(ours, site.change(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor", [Factor.A, Factor.B])
def test_a_round_of_one_factor_with_unequal_ranks(site: Site, factor: Factor) -> None:
    rng = np.random.default_rng(1)
    parent, before = site.adapter(), site.change()
    tensors = parent.tensors()
    deltas = [pad(update(rng, parent, factor, rank=rank), parent.tensors(), factor) for rank in (1, 2, 4)]
    changes = [site.change({name: tensors[name] + t for name, t in delta.items()}) - before for delta in deltas]
    whitening = Whitening.of(parent, factor)
    x = [whitening.whiten(delta) for delta in deltas]
    for delta, change in zip(deltas, changes, strict=True):
        assert np.hypot.reduce(list(whitening.norms(delta).values())) == pytest.approx(np.linalg.norm(change), rel=1e-5)
    mean = whitening.unwhiten({name: np.mean([y[name] for y in x], axis=0) for name in x[0]})
    applied = site.change({name: tensors[name] + t for name, t in mean.items()})
    np.testing.assert_allclose(applied - before, np.mean(changes, axis=0), atol=1e-4)


def test_a_round_of_both_factors(site: Site) -> None:
    rng = np.random.default_rng(2)
    parent, before = site.adapter(), site.change()
    tensors = parent.tensors()
    updates = [update(rng, parent, Factor.BOTH, 0.02) for _ in range(3)]
    changes = [site.change({name: tensors[name] + t for name, t in delta.items()}) - before for delta in updates]
    for delta, change in zip(updates, changes, strict=True):
        norm = np.hypot.reduce(list(product_norms(delta, parent).values()))
        assert norm == pytest.approx(np.linalg.norm(change), rel=1e-3)
    mean = np.mean(changes, axis=0)
    thirds = [1 / 3] * 3
    for result in (svd_mean(updates, thirds, parent), svd_trimmed(updates, None, 0, parent)):
        assert result.tensors.keys() == tensors.keys()
        missed = np.linalg.norm(site.change(result.tensors) - before - mean)
        assert missed <= (result.discarded**0.5 + 1e-3) * np.linalg.norm(mean)
