"""What the demo is compared with: every site alone, and all data in one place. Imports torch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.tensors import Tensors
from concordat_learning import demo_model, digits, intervals
from concordat_learning.data import Examples, pool
from concordat_learning.loop import LoopSettings, site_seed, train
from concordat_learning.model import AdaptedModel

# The recipe of examples/demo/round.yaml.
STEPS = 150
BATCH = 32
RATE = 3e-3


@dataclass(frozen=True)
class Bench:
    """The demo federation in one process: the model, the first adapter's weights, and everybody's data."""

    model: AdaptedModel
    genesis: Tensors
    sites: dict[str, Examples]
    """Training data by site."""
    holdout: Examples
    steps: int = STEPS
    """Of one local training."""

    def local(self, site: str, parent: Mapping[str, NDArray[np.float32]], factor: Factor, seed: int) -> Tensors:
        """Return the candidate adapter of one site's local training in one round."""
        self.model.load(parent)
        recipe = LoopSettings(factor, BATCH, RATE, site_seed(seed, site))
        train(self.model, self.sites[site], recipe, self.steps)
        return self.model.tensors()

    def quality(self, adapter: Mapping[str, NDArray[np.float32]]) -> int:
        """Accuracy on the hold-out data, in parts per million."""
        self.model.load(adapter)
        return intervals.ppm(self.model.correct(self.holdout), len(self.holdout))


def factor_of(round_number: int) -> Factor:
    """Return the LoRA factor trained in round 1, 2, …: B in odd rounds, A in even ones."""
    return Factor.B if round_number % 2 else Factor.A


def bench(seed: int, base_steps: int = demo_model.BASE_STEPS, steps: int = STEPS) -> Bench:
    """Make the base package anew and split the data, as `demo base` and `demo data` do."""
    everything = digits.digits()
    split = digits.partition(everything.labels, seed)
    with tempfile.TemporaryDirectory() as folder:
        demo_model.write_base(Path(folder), everything.take(split.public), seed, base_steps)
        model = AdaptedModel.open(Path(folder) / "base", Path(folder) / "adapter")
    return Bench(
        model=model,
        genesis=model.tensors(),
        sites={name: everything.take(indices) for name, indices in split.train.items()},
        holdout=everything.take(split.holdout),
        steps=steps,
    )


def local_only(made: Bench, seed: int, rounds: int) -> dict[str, int]:
    """Hold-out accuracy of each site's adapter when it trains alone for as many rounds, in parts per million."""
    out = {}
    for site in made.sites:
        adapter = made.genesis
        for number in range(1, rounds + 1):
            adapter = made.local(site, adapter, factor_of(number), seed)
        out[site] = made.quality(adapter)
    return out


def centralized(made: Bench, seed: int, rounds: int) -> int:
    """Hold-out accuracy of one adapter trained on the pooled data, with the steps of all sites and rounds together."""
    made.model.load(made.genesis)
    steps = made.steps * rounds * len(made.sites)
    train(
        made.model,
        pool(list(made.sites.values())),
        LoopSettings(Factor.BOTH, BATCH, RATE, site_seed(seed, "pooled")),
        steps,
    )
    return made.quality(made.model.tensors())


def reference(seed: int, rounds: int, base_steps: int = demo_model.BASE_STEPS, steps: int = STEPS) -> dict[str, Any]:
    """All figures, in parts per million on the hold-out data."""
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; it must be at least 1")
    made = bench(seed, base_steps, steps)
    alone = local_only(made, seed, rounds)
    return {
        "seed": seed,
        "rounds": rounds,
        "examples": len(made.holdout),
        "parentPpm": made.quality(made.genesis),
        "localOnlyPpm": alone,
        "localOnlyMeanPpm": round(sum(alone.values()) / len(alone)),
        "centralizedPpm": centralized(made, seed, rounds),
    }
