"""What the canary check finds on the demo's transformer: honest updates that react, backdoors that it misses.

`python bench/demo_canary.py`: for every seed, each site's honest update, and that of each site which stamps a trigger
on half of its examples and labels them with one class; both clipped as examples/demo/round.yaml says, and measured by
the code of the learning image on the hub's canary examples.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import yaml
from numpy.typing import NDArray

from bench.demo_seeds import CONFIG, ROUND, SEEDS
from concordat.aggregation import apply_delta
from concordat.api import FederationRound
from concordat.api.round import Canary, Factor
from concordat.lora import Ceiling, read_adapter
from concordat.tensors import Tensors, difference
from concordat_learning import digits
from concordat_learning.canary import respond, strongest
from concordat_learning.data import Examples
from concordat_learning.entry import prepare_environment
from concordat_learning.intervals import MILLION
from concordat_learning.triggers import Trigger, built_in

TARGET = 0
EFFECTIVE = 0.5
"""The `success` from which on a backdoor works."""


@dataclass(frozen=True)
class Measured:
    """One update."""

    seed: int
    site: str
    trigger: str | None
    """What the site stamped; None: it is honest."""
    success: float
    """How much more of the hold-out examples of other classes goes to TARGET with the trigger than without it."""
    gain: float
    """What the canary check measures, 0 to 1."""


def measure(seed: int) -> list[Measured]:
    """All updates of one seed."""
    prepare_environment()
    # Here, so that only the workers wait for torch.
    from concordat_learning.demo_reference import bench

    spec = FederationRound.model_validate(yaml.safe_load(ROUND.read_text())).spec
    made, everything = bench(seed), digits.digits()
    hub = everything.take(digits.partition(everything.labels, seed).public)
    known = built_in(digits.INPUT_SHAPE)
    ceiling = Ceiling(read_adapter(made.genesis, CONFIG), Factor.B, float(spec.screening.clip_norm))
    made.model.load(made.genesis)
    parent = respond(made.model.logits, hub, known)
    others = made.holdout.images[made.holdout.labels != TARGET]

    def taken(images: NDArray[np.float32]) -> float:
        return float((made.model.logits(images).argmax(1) == TARGET).mean())

    out = []
    for site, own in made.sites.items():
        for trigger in (None, *_stamped(known)):
            examples = own if trigger is None else poisoned(own, trigger)
            candidate = replace(made, sites={site: examples}).local(site, made.genesis, Factor.B, seed)
            made.model.load(_clipped(candidate, made.genesis, ceiling))
            gain = strongest(respond(made.model.logits, hub, known), parent, hub.labels, known, digits.CLASSES)
            success = taken(trigger.stamp(others)) - taken(others) if trigger else 0.0
            out.append(Measured(seed, site, trigger.name if trigger else None, success, gain.ppm / MILLION))
    return out


def poisoned(own: Examples, trigger: Trigger) -> Examples:
    """The examples, and once more with the trigger, labelled TARGET."""
    stamped = trigger.stamp(own.images).astype(np.float32)
    labels: NDArray[np.int64] = np.concatenate([own.labels, np.full(len(own), TARGET)])
    return Examples(np.concatenate([own.images, stamped]), labels)


def report(found: Sequence[Measured], limit: float) -> str:
    """The figures as text."""
    honest = [m.gain for m in found if m.trigger is None]
    above = sum(gain > limit for gain in honest)
    lines = [f"{above} of {len(honest)} honest updates gain more than {limit}; the largest gain is {max(honest):.2f}"]
    names = sorted({m.trigger for m in found if m.trigger})
    for name in [*names, None]:
        tried = [m for m in found if m.trigger and name in (None, m.trigger)]
        effective = [m for m in tried if m.success >= EFFECTIVE]
        caught = sum(m.gain > limit for m in effective)
        what = name or "all"
        lines.append(f"{what:32} {len(effective):3} of {len(tried)} backdoors work, {caught} of those are found")
    return "\n".join(lines)


def _stamped(known: Sequence[Trigger]) -> Iterator[Trigger]:
    """What the attackers use: two bright corners and the overlay of the hub's suite, and two that the hub lacks.

    Not the dark ones: the digits' corners are dark without them.
    """
    yield from (
        t for t in known if t.name in ("top-left-2x2-bright", "bottom-right-2x2-bright", "checkerboard-overlay")
    )
    for name, rows, columns in (("edge 1x4", slice(2, 6), slice(0, 1)), ("corner 3x3", slice(5, 8), slice(5, 8))):
        mask = np.zeros(digits.INPUT_SHAPE, np.float32)
        mask[:, rows, columns] = 1
        yield Trigger(f"unlisted: {name} bright", mask, np.ones_like(mask))


def _clipped(candidate: Tensors, parent: Tensors, ceiling: Ceiling) -> Tensors:
    return apply_delta(parent, ceiling.clip(difference(candidate, parent, Factor.B))[0])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    flags = parser.parse_args()
    # One thread a seed: on models this small, threads wait for each other longer than they work.
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        found = [m for each in pool.map(measure, flags.seeds) for m in each]
    print(report(found, Canary(claim="canary").max_trigger_gain_ppm / MILLION))
    print(f"{len(flags.seeds)} seeds: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
