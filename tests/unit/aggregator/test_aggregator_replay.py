"""The last aggregate that an update may repeat: that of the same factor, however the rounds trained them in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from concordat.api.round import Factor
from concordat.tensors import Named, Tensors
from concordat_aggregator.both_factors import method_of
from concordat_aggregator.inputs import Parent, RequestError
from tests.support.contracts import IMAGE, contract
from tests.unit.lora.adapters import build, update

RNG = np.random.default_rng(0)
ADAPTER = build(RNG, {"q": (9, 8, 3), "v": (5, 8, 2)})
PARENT = Parent(ADAPTER.tensors(), b"", ADAPTER)


def before(later: Named, step: Named) -> Tensors:
    """The adapter from which `step` led to `later`."""
    return {name: tensor - step.get(name, np.float32(0)) for name, tensor in later.items()}


def cosines(tmp_path: Path, factor: Factor, sent: dict[str, Named], ancestors: list[Tensors]) -> list[float] | None:
    recipe = {"image": IMAGE, "trainFactor": factor.value}
    method = method_of(contract(recipe=recipe), PARENT, tmp_path)
    for site, delta in sent.items():
        method.admit(site, delta)
    found = method.compare(list(sent), ancestors)[1]
    return None if found is None else found.tolist()


@pytest.mark.parametrize(("factor", "other"), [(Factor.A, Factor.B), (Factor.B, Factor.A)])
def test_a_replay_is_found_when_the_factors_take_turns(tmp_path: Path, factor: Factor, other: Factor) -> None:
    """Engine review, finding F7: the last round trained the other factor, and nothing was compared."""
    mine, theirs = update(RNG, ADAPTER, factor, 0.1), update(RNG, ADAPTER, other, 0.1)
    newer = before(PARENT.tensors, theirs)
    ancestors = [newer, before(newer, mine)]
    found = cosines(tmp_path, factor, {"site-a": update(RNG, ADAPTER, factor), "site-b": mine}, ancestors)
    assert found is not None
    assert found[1] > 0.999 > 0.9 > abs(found[0])


def test_of_two_rounds_of_one_factor_the_newer_counts(tmp_path: Path) -> None:
    newest, older = update(RNG, ADAPTER, Factor.B, 0.1), update(RNG, ADAPTER, Factor.B, 0.1)
    newer = before(PARENT.tensors, newest)
    found = cosines(tmp_path, Factor.B, {"site-a": older, "site-b": newest}, [newer, before(newer, older)])
    assert found is not None
    assert found[1] > 0.999 > 0.9 > abs(found[0])


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_factor_that_was_not_trained_has_no_last_aggregate(tmp_path: Path, steps: int) -> None:
    ancestors = [before(PARENT.tensors, update(RNG, ADAPTER, Factor.A, 0.1)) for _ in range(steps)]
    assert cosines(tmp_path, Factor.B, {"site-a": update(RNG, ADAPTER, Factor.B)}, ancestors) is None


def test_an_ancestor_of_another_shape_is_an_error_of_the_hub(tmp_path: Path) -> None:
    other = build(RNG, {"q": (9, 8, 2), "v": (5, 8, 2)}).tensors()
    with pytest.raises(RequestError, match="another shape"):
        cosines(tmp_path, Factor.B, {"site-a": update(RNG, ADAPTER, Factor.B)}, [other])
