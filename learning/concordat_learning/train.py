"""Entry point of a training Job: `python -m concordat_learning.train --base … --task … --data … --out …`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np

from concordat_learning import intervals, isolation, results
from concordat_learning.data import TRAIN, VALIDATION, Examples, read_examples
from concordat_learning.entry import Folders, run
from concordat_learning.errors import InputError
from concordat_learning.package import read_package
from concordat_learning.task import TrainTask, read_train_task
from concordat_learning.tensors import is_trained, write

EVIDENCE_SCHEMA = "concordat.dev/training-evidence/v1"
_REPORTS = 10
# Part of the wall-clock budget kept for judging the candidate and writing the result.
_RESERVE_SHARE = 0.1


def job(folders: Folders, clock: Callable[[], float] = time.monotonic) -> None:
    """The whole Job: prove isolation, then `train_site`."""
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
    task = read_train_task(folders.task)
    package = read_package(folders.base)
    examples = read_examples(folders.data / TRAIN, package)
    validation = read_examples(folders.data / VALIDATION, package)
    say(f"{task.site}: {len(examples)} examples, factor {task.factor}, at most {task.max_steps} steps")
    adapter, evidence = _train(folders, task, examples, validation, started, clock)
    evidence["wallSeconds"] = f"{clock() - started:.3f}"
    results.publish(
        folders.out,
        {"adapter_model.safetensors": adapter, "evidence.json": json.dumps(evidence, sort_keys=True).encode()},
    )
    say(
        f"accuracy on own validation data: parent {evidence['parentPpm']} ppm, candidate {evidence['candidatePpm']} ppm"
    )


def _train(
    folders: Folders,
    task: TrainTask,
    examples: Examples,
    validation: Examples,
    started: float,
    clock: Callable[[], float],
) -> tuple[bytes, dict[str, int | str]]:
    from concordat_learning.model import AdaptedModel
    from concordat_learning.training import Recipe, site_seed, train

    model = AdaptedModel.open(folders.base, folders.task / "parent")
    parent = model.tensors()
    judging = clock()
    parent_correct = model.correct(validation)
    judged = clock()
    # The candidate takes as long to judge as the parent did.
    deadline = started + task.max_wall_seconds * (1 - _RESERVE_SHARE) - (judged - judging)
    every = max(1, task.max_steps // _REPORTS)
    trained = train(
        model,
        examples,
        Recipe(task.factor, task.batch_size, task.learning_rate, site_seed(task.seed, task.site)),
        task.max_steps,
        deadline=deadline,
        clock=clock,
        progress=lambda step, loss: say(f"step {step}/{task.max_steps} loss {loss:.4f}") if step % every == 0 else None,
    )
    if trained.steps < task.max_steps:
        say(f"stopped after {trained.steps} steps: budget.maxWallSeconds={task.max_wall_seconds:g} is nearly used up")
    candidate = {name: t if is_trained(name, task.factor) else parent[name] for name, t in model.tensors().items()}
    for name, tensor in candidate.items():
        if not bool(np.isfinite(tensor).all()):
            raise InputError(f"training made {name} infinite; lower recipe.learningRate={task.learning_rate:g}")
    return write(candidate), {
        "schema": EVIDENCE_SCHEMA,
        "steps": trained.steps,
        "examples": len(examples),
        "validationExamples": len(validation),
        "parentPpm": intervals.ppm(parent_correct, len(validation)),
        "candidatePpm": intervals.ppm(model.correct(validation), len(validation)),
        "firstLoss": f"{trained.first_loss:.6f}",
        "lastLoss": f"{trained.last_loss:.6f}",
        "isolation": "verified",
    }


def say(text: str) -> None:
    """One line for `kubectl logs`."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(run(job, "Train LoRA factor A, B or both on a site's own data, without a network."))
