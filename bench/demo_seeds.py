"""Does a round of the demo federation learn? The whole round in one process, without a cluster, over several seeds.

`python bench/demo_seeds.py`: for every seed the base package, five local trainings, what each site sends, what the
hub refuses and combines, and the accuracy of the result on the evaluator's hold-out data, beside training without a
federation. The recipe is that of examples/demo/round.yaml, the code that of the Jobs, the agent and the aggregator.
All of it twice: with the processor's own instruction set, and with another one, because training ends elsewhere there.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from concordat.aggregation import Rows, aggregate, apply_delta, gram
from concordat.api import FederationRound, Reason
from concordat.lora import Ceiling, Whitening, orthonormal, read_adapter
from concordat.screening import NORM_TOLERANCE, Candidate, decimal, screen
from concordat.tensors import Tensors, difference
from concordat_learning.entry import prepare_environment
from concordat_learning.processor import another, in_use

ROUND = Path(__file__).resolve().parents[1] / "examples" / "demo" / "round.yaml"
CONFIG = {"r": 8, "lora_alpha": 16}
"""As concordat_learning.demo_model makes the adapter."""
HOSTILE = "site-d"
HOSTILE_SCALE = np.float32(-20)
"""As examples/demo/hostile sends it."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Figures:
    """One seed: accuracies in parts per million on the hold-out data, and what became of the updates."""

    seed: int
    instructions: str
    """The instruction set that torch computed with."""
    parent: int
    local_only: dict[str, int]
    """One round of training alone, by site."""
    local_only_mean: int
    candidates: list[int]
    """After round 1, 2, …"""
    centralized: int | None
    """All data in one place; None if it was not asked for: it is more than a third of the work."""
    norms: dict[str, str]
    """Of the last round's updates, as sent."""
    refused: dict[str, str]
    """Reason, by site, in the last round."""


def measure(seed: int, rounds: int, with_centralized: bool) -> Figures:
    """Run the federation, and what it is compared with."""
    prepare_environment()
    # Here, so that only the workers wait for torch, and import it under the variables of their run.
    import torch

    from concordat_learning.demo_reference import bench, centralized, factor_of

    spec = FederationRound.model_validate(yaml.safe_load(ROUND.read_text())).spec
    made = bench(seed)
    parent, qualities = made.genesis, [made.quality(made.genesis)]
    alone: dict[str, int] = {}
    norms: dict[str, float] = {}
    refused: dict[str, str] = {}
    for number in range(1, rounds + 1):
        factor = factor_of(number)
        candidates = {site: made.local(site, parent, factor, seed) for site in made.sites}
        # In the first round everybody starts from the same adapter: its candidates are training alone.
        alone = alone or {site: made.quality(candidate) for site, candidate in candidates.items()}
        limit = float(spec.screening.clip_norm)
        adapter = read_adapter(parent, CONFIG)
        sent, norms = _sent(candidates, parent, Ceiling(adapter, factor, limit))
        whitening = Whitening.of(adapter, factor)
        accepted, refused, faults = _accepted(sent, norms, whitening, limit, spec.aggregation.max_faulty_sites)
        made_one = aggregate(accepted, spec.aggregation.rule, faults, pre=spec.aggregation.pre_aggregation)
        moved = apply_delta(parent, whitening.unwhiten(made_one.tensors))
        parent = orthonormal(read_adapter(moved, CONFIG), factor)
        qualities.append(made.quality(parent))
    return Figures(
        seed=seed,
        instructions=torch.backends.cpu.get_cpu_capability(),
        parent=qualities[0],
        local_only=alone,
        local_only_mean=round(sum(alone.values()) / len(alone)),
        candidates=qualities[1:],
        centralized=centralized(made, seed, rounds) if with_centralized else None,
        norms={site: decimal(norm) for site, norm in norms.items()},
        refused=refused,
    )


def _sent(
    candidates: Mapping[str, Tensors], parent: Tensors, ceiling: Ceiling
) -> tuple[dict[str, Tensors], dict[str, float]]:
    """What the sites send, and the norms of the weight changes."""
    sent: dict[str, Tensors] = {}
    for site, candidate in candidates.items():
        delta = difference(candidate, parent, ceiling.factor)
        hostile = {name: values * HOSTILE_SCALE for name, values in delta.items()}
        sent[site] = hostile if site == HOSTILE else ceiling.clip(delta)[0]
    return sent, {site: math.hypot(*ceiling.norms(delta).values()) for site, delta in sent.items()}


def _accepted(
    sent: Mapping[str, Tensors], norms: Mapping[str, float], whitening: Whitening, limit: float, max_faulty: int
) -> tuple[list[Tensors], dict[str, str], int]:
    """What the hub accepts, whitened; its refusals by site; and what is left of the fault budget."""
    refused = {site: "NormExceeded" for site, norm in norms.items() if norm > limit * (1 + NORM_TOLERANCE)}
    sites = [site for site in sorted(sent) if site not in refused]
    vectors = {site: whitening.whiten(sent[site]) for site in sites}
    products = gram(Rows([vectors[site] for site in sites]))
    screened = screen(
        [Candidate(site, norms[site], place) for place, site in enumerate(sites)],
        products.inner,
        products.distances2,
        max_faulty=max_faulty,
        charged_before=len(refused),
    )
    refused |= {f.site: f.reason.value for f in screened.findings if f.reason is not Reason.VERIFIED}
    return [vectors[site] for site in sites if site not in refused], refused, screened.remaining_faults


def table(found: Sequence[Figures]) -> str:
    """The figures as text, accuracies in percent."""
    rounds = len(found[0].candidates)
    head = ["seed", "parent", "local-only mean (best)", *(f"round {n}" for n in range(1, rounds + 1)), "centralized"]
    rows = [
        [
            str(f.seed),
            _percent(f.parent),
            f"{_percent(f.local_only_mean)} ({_percent(max(f.local_only.values()))})",
            *map(_percent, f.candidates),
            "–" if f.centralized is None else _percent(f.centralized),
        ]
        for f in found
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    for f in found:
        sent = ", ".join(f"{site} {norm}" for site, norm in f.norms.items())
        refusals = ", ".join(f"{site} {reason}" for site, reason in f.refused.items()) or "none"
        lines.append(f"seed {f.seed}: norms as sent: {sent}; refused: {refusals}")
    return "\n".join(lines)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the processes started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.1f} %"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--centralized", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    flags = parser.parse_args()
    # One thread a seed: on models this small, threads wait for each other longer than they work.
    os.environ["OMP_NUM_THREADS"] = "1"
    own = in_use()
    found: list[Figures] = []
    for variables in ({}, another(own)):
        started = time.monotonic()
        with environment(variables), ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            figures = list(
                pool.map(partial(measure, rounds=flags.rounds, with_centralized=flags.centralized), flags.seeds)
            )
        named = f" ({' '.join(f'{name}={value}' for name, value in variables.items())})" if variables else ""
        again = "; the same again: this processor has no other" if variables and figures[0].instructions == own else ""
        print(f"torch computes with {figures[0].instructions}{named}{again}")
        print(table(figures))
        print(f"{len(figures)} seeds, {flags.rounds} round(s): {time.monotonic() - started:.0f} s\n")
        found += figures
    if flags.json:
        flags.json.write_text(json.dumps([asdict(f) for f in found], indent=2) + "\n")


if __name__ == "__main__":
    main()
