"""What a Job is to do: task.json, and for training contract.json, as the site's agent staged them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from concordat_learning.errors import InputError
from concordat_learning.fields import Fields, read_json
from concordat_learning.tensors import Factor

CONTRACT_SCHEMA = "concordat.dev/round-contract/v1"
_MODEL_NAME = re.compile(r"^[a-z][a-z0-9-]{0,62}$")


@dataclass(frozen=True)
class TrainTask:
    """One site's part of a round: its name, and the contract's recipe and budget."""

    site: str
    factor: Factor
    batch_size: int
    learning_rate: float
    seed: int
    max_steps: int
    max_wall_seconds: float


@dataclass(frozen=True)
class EvaluateTask:
    """The adapters to judge, by the names of their folders, and the confidence level of the intervals."""

    models: tuple[str, ...]
    confidence_ppm: int


def read_train_task(folder: Path) -> TrainTask:
    """Read task.json and contract.json of a training Job. Raises InputError."""
    task = _task(folder, "train")
    site = task.text("site")
    contract = Fields(read_json(folder / "contract.json"), str(folder / "contract.json"))
    contract.constant("schema", CONTRACT_SCHEMA)
    _check_member(contract, site)
    recipe, budget = contract.object("recipe"), contract.object("budget")
    text = recipe.text("trainFactor")
    factor: Factor | None = next((known for known in get_args(Factor) if known == text), None)
    if factor is None:
        raise InputError(f"{recipe.where}: trainFactor is {text!r}; it must be A, B or Both")
    return TrainTask(
        site=site,
        factor=factor,
        batch_size=recipe.integer("batchSize", 1, 4096),
        learning_rate=recipe.real("learningRate", 1e-6, 999_999),
        seed=recipe.integer("seed", 0, 2**31 - 1),
        max_steps=budget.integer("maxSteps", 1, 1_000_000),
        max_wall_seconds=budget.real("maxWallSeconds", 10, 604_800),
    )


def read_evaluate_task(folder: Path) -> EvaluateTask:
    """Read task.json of an evaluation Job. Raises InputError."""
    task = _task(folder, "evaluate")
    models = task.value("models")
    if not isinstance(models, list) or not models or len(set(map(str, models))) != len(models):
        raise InputError(f"{task.where}: models is {models!r}; it must be a list of different folder names")
    for name in models:
        # A name becomes a path, so it must not lead out of the folder.
        if not isinstance(name, str) or not _MODEL_NAME.match(name):
            raise InputError(f"{task.where}: models has {name!r}; a name is lower-case letters, digits and hyphens")
    return EvaluateTask(tuple(models), task.integer("confidencePpm", 500_000, 999_999))


def _task(folder: Path, kind: str) -> Fields:
    fields = Fields(read_json(folder / "task.json"), str(folder / "task.json"))
    fields.constant("kind", kind)
    return fields


def _check_member(contract: Fields, site: str) -> None:
    sites = contract.value("sites")
    names = [s.get("name") for s in sites if isinstance(s, dict)] if isinstance(sites, list) else []
    if site not in names:
        raise InputError(f"{contract.where}: sites does not name {site!r}; the contract is for other sites")
