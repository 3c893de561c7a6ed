"""Entry point of a training Job: `python -m concordat_learning.train --base … --task … --data … --out …`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from concordat.protocol.artifact_types import ADAPTER_FILE
from concordat.protocol.contract import Contract
from concordat.protocol.locations import PARENT_FOLDER
from concordat.protocol.training import TrainingEvidence
from concordat.tensors import write_tensors
from concordat_learning import intervals, isolation, results
from concordat_learning.data import TRAIN, VALIDATION, Examples, read_examples
from concordat_learning.entry import Folders, run
from concordat_learning.errors import InputError
from concordat_learning.package import read_package
from concordat_learning.task import read_train_task
from concordat_learning.tensors import is_trained

_REPORTS = 10
# Part of the wall-clock budget kept for judging the candidate and writing the result.
_RESERVE_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """A site's data."""

    train: Examples
    validation: Examples


def job(folders: Folders, clock: Callable[[], float] = time.monotonic) -> None:
    """Run the whole Job: prove isolation, then `train_site`."""
    started = clock()
    isolation.verify()
    train_site(folders, started=started, clock=clock)


def train_site(folders: Folders, *, started: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Train as the contract says and publish the result; the caller has verified isolation, which evidence states.

    `started` is when the wall-clock budget began to count, on `clock`. Inputs and data are checked before anything
    heavy is imported.
    """
    if results.is_published(folders.out):
        say("an earlier pod of this Job handed over its result already")
        return
    site, contract = read_train_task(folders.task)
    package = read_package(folders.base)
    examples = read_examples(folders.data / TRAIN, package)
    validation = read_examples(folders.data / VALIDATION, package)
    recipe, budget = contract.recipe, contract.budget
    say(f"{site}: {len(examples)} examples, factor {recipe.train_factor}, at most {budget.max_steps} steps")
    adapter, evidence = _train(folders, site, contract, Split(examples, validation), started, clock)
    results.publish(folders.out, {ADAPTER_FILE: adapter, evidence.FILE: evidence.to_bytes()})
    say(f"accuracy on own validation data: parent {evidence.parent_ppm} ppm, candidate {evidence.candidate_ppm} ppm")


def _train(
    folders: Folders,
    site: str,
    contract: Contract,
    split: Split,
    started: float,
    clock: Callable[[], float],
) -> tuple[bytes, TrainingEvidence]:
    from concordat_learning.loop import LoopSettings, site_seed, train
    from concordat_learning.model import AdaptedModel

    examples, validation = split.train, split.validation
    recipe, max_steps, seconds = contract.recipe, contract.budget.max_steps, contract.budget.max_wall_seconds
    model = AdaptedModel.open(folders.base, folders.task / PARENT_FOLDER)
    parent = model.tensors()
    judging = clock()
    parent_correct = model.correct(validation)
    judged = clock()
    # The candidate takes as long to judge as the parent did.
    deadline = started + seconds * (1 - _RESERVE_SHARE) - (judged - judging)
    every = max(1, max_steps // _REPORTS)
    trained = train(
        model,
        examples,
        LoopSettings(recipe.train_factor, recipe.batch_size, float(recipe.learning_rate), site_seed(recipe.seed, site)),
        max_steps,
        deadline=deadline,
        clock=clock,
        progress=lambda step, loss: say(f"step {step}/{max_steps} loss {loss:.4f}") if step % every == 0 else None,
    )
    if trained.steps < max_steps:
        say(f"stopped after {trained.steps} steps: budget.maxWallSeconds={seconds} is nearly used up")
    candidate = {
        name: t if is_trained(name, recipe.train_factor) else parent[name] for name, t in model.tensors().items()
    }
    for name, tensor in candidate.items():
        if not bool(np.isfinite(tensor).all()):
            raise InputError(f"training made {name} infinite; lower recipe.learningRate={recipe.learning_rate}")
    return write_tensors(candidate), TrainingEvidence(
        steps=trained.steps,
        examples=len(examples),
        validation_examples=len(validation),
        parent_ppm=intervals.ppm(parent_correct, len(validation)),
        candidate_ppm=intervals.ppm(model.correct(validation), len(validation)),
        isolation="verified",
        first_loss=f"{trained.first_loss:.6f}",
        last_loss=f"{trained.last_loss:.6f}",
        wall_seconds=f"{clock() - started:.3f}",
    )


def say(text: str) -> None:
    """One line for `kubectl logs`."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(run(job, "Train LoRA factor A, B or both on a site's own data, without a network."))
