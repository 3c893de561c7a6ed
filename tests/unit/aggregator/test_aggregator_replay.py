"""The last aggregates that an update may repeat, however the rounds trained the factors in turn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora import Adapter, orthonormal, read_adapter
from concordat.tensors import Named, Tensors
from concordat_aggregator.both_factors import method_of
from concordat_aggregator.inputs import Parent, RequestError
from tests.support.contracts import IMAGE, contract
from tests.unit.lora.adapters import build, by_module, update

RNG = np.random.default_rng(0)
ADAPTER = build(RNG, {"q": (9, 8, 3), "v": (5, 8, 2)})
PARENT = Parent(ADAPTER.tensors(), b"", ADAPTER)
OTHER = {Factor.A: Factor.B, Factor.B: Factor.A}


def before(later: Named, step: Named) -> Tensors:
    """The adapter from which `step` led to `later`."""
    return {name: tensor - step.get(name, np.float32(0)) for name, tensor in later.items()}


def cosines(
    tmp_path: Path, factor: Factor, sent: dict[str, Named], ancestors: list[Tensors], parent: Adapter = ADAPTER
) -> list[float] | None:
    recipe = {"image": IMAGE, "trainFactor": factor.value}
    method = method_of(contract(recipe=recipe), Parent(parent.tensors(), b"", parent), tmp_path)
    for site, delta in sent.items():
        method.admit(site, method.measure(delta)[0])
    found = method.compare(list(sent), ancestors)[1]
    return None if found is None else found.tolist()


@dataclass(frozen=True)
class History:
    """Two rounds, each published in the gauge of the next, and the adapters they went through."""

    adapters: list[Adapter]
    """Newest first: the parent, and its two ancestors."""

    @classmethod
    def of(cls, factor: Factor, size: float = 0.1) -> History:
        """The older round trained `factor`, as the next one will; the newer one the other factor."""
        adapters = [gauged(ADAPTER, OTHER[factor])]
        for trained in (factor, OTHER[factor]):
            step = update(RNG, adapters[0], trained, size)
            moved = {name: t + step.get(name, np.float32(0)) for name, t in adapters[0].tensors().items()}
            adapters.insert(0, gauged(as_adapter(moved), trained))
        return cls(adapters)

    def sent_back(self, factor: Factor, step: int) -> Named:
        """The update of `factor` that comes nearest the weight change of one step, 0 the newest, by least squares."""
        out: dict[str, NDArray[Any]] = {}
        parent, later, earlier = self.adapters[0], self.adapters[step], self.adapters[step + 1]
        for name, module in parent.modules.items():
            change = by_module(later)[name] - by_module(earlier)[name]
            if factor is Factor.B:
                delta = change @ np.linalg.pinv(module.a.astype(np.float64))
            else:
                delta = np.linalg.pinv(module.b.astype(np.float64)) @ change
            out[module.tensor_name(factor)] = (delta / module.scale).astype(np.float32)
        return out

    def cosines(self, tmp_path: Path, factor: Factor, sent: dict[str, Named]) -> list[float] | None:
        return cosines(tmp_path, factor, sent, [a.tensors() for a in self.adapters[1:]], self.adapters[0])


def as_adapter(tensors: Named) -> Adapter:
    return read_adapter(tensors, {"r": 1, "lora_alpha": 3, "rank_pattern": {"q": 3, "v": 2}})


def gauged(adapter: Adapter, fixed: Factor) -> Adapter:
    return as_adapter(orthonormal(adapter, fixed))


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("factor", [Factor.A, Factor.B])
def test_a_replay_is_found_when_the_factors_take_turns(tmp_path: Path, factor: Factor, step: int) -> None:
    """Engine review, findings F7 and F8: the last round trained the other factor, and between two adapters the factors
    are written anew, so that their difference says nothing.
    """
    history = History.of(factor)
    honest = update(RNG, history.adapters[0], factor)
    sent: dict[str, Named] = {"site-a": honest, "site-b": history.sent_back(factor, step)}
    found = history.cosines(tmp_path, factor, sent)
    assert found is not None
    assert found[1] > 0.999 > 0.9 > abs(found[0])


def test_another_gauge_alone_is_no_step(tmp_path: Path) -> None:
    """The same weights in other factors: whatever a site sends repeats nothing."""
    parent, other = gauged(ADAPTER, Factor.A), gauged(ADAPTER, Factor.B)
    difference = {n: t - other.tensors()[n] for n, t in parent.tensors().items() if "lora_B" in n}
    found = cosines(tmp_path, Factor.B, {"site-a": difference}, [other.tensors()], parent)
    assert found is not None
    assert abs(found[0]) < 0.9


def test_of_two_rounds_of_one_factor_both_count(tmp_path: Path) -> None:
    newest, older = update(RNG, ADAPTER, Factor.B, 0.1), update(RNG, ADAPTER, Factor.B, 0.1)
    newer = before(PARENT.tensors, newest)
    sent: dict[str, Named] = {"site-a": update(RNG, ADAPTER, Factor.B), "site-b": newest, "site-c": older}
    found = cosines(tmp_path, Factor.B, sent, [newer, before(newer, older)])
    assert found is not None
    assert min(found[1:]) > 0.999 > 0.9 > abs(found[0])


def test_a_first_round_has_no_last_aggregate(tmp_path: Path) -> None:
    assert cosines(tmp_path, Factor.B, {"site-a": update(RNG, ADAPTER, Factor.B)}, []) is None


def test_an_ancestor_of_another_shape_is_an_error_of_the_hub(tmp_path: Path) -> None:
    other = build(RNG, {"q": (9, 8, 2), "v": (5, 8, 2)}).tensors()
    with pytest.raises(RequestError, match="another shape"):
        cosines(tmp_path, Factor.B, {"site-a": update(RNG, ADAPTER, Factor.B)}, [other])
