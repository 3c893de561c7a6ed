"""An evaluation Job on a tiny model."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from concordat_learning.errors import InputError
from concordat_learning.evaluate import evaluate_site
from concordat_learning.tensors import write
from concordat_site.evidence import Evaluation, parse

Job = Any
MODELS = ["parent", "candidate", "champion"]


@pytest.fixture
def evaluation(job: Job) -> Job:
    """The task of an evaluation, with three adapters."""
    for name in MODELS[1:]:
        shutil.copytree(job.root / "task" / "parent", job.root / "task" / name)
    (job.root / "task" / "contract.json").unlink()
    (job.root / "data" / "train.safetensors").unlink()
    job.write_task("task.json", {"kind": "evaluate", "models": MODELS, "confidencePpm": 950_000})
    return job


def test_the_agent_accepts_what_it_leaves(evaluation: Job) -> None:
    evaluate_site(evaluation.folders)
    found = parse(Evaluation, evaluation.result("evaluation.json"))
    assert found.examples == 24
    assert found.models.champion == found.models.parent == found.models.candidate
    assert found.models.parent.low_ppm < found.models.parent.ppm < found.models.parent.high_ppm


def test_adapters_are_told_apart(evaluation: Job) -> None:
    moved = {n: t + 1 if ".lora_B." in n else t for n, t in evaluation.parent().items()}
    (evaluation.root / "task" / "candidate" / "adapter_model.safetensors").write_bytes(write(moved))
    evaluate_site(evaluation.folders)
    models = parse(Evaluation, evaluation.result("evaluation.json")).models
    assert models.champion == models.parent != models.candidate


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"kind": "train"}, "kind is 'train'; this image knows 'evaluate'"),
        ({"models": ["../../data"]}, "models has '../../data'"),
        ({"models": ["parent", "parent"]}, "list of different folder names"),
        ({"models": []}, "list of different folder names"),
        ({"models": "parent"}, "list of different folder names"),
        ({"confidencePpm": 1_000_000}, "confidencePpm is 1000000; it must be a number in 500000..999999"),
        ({"confidencePpm": None}, "confidencePpm is missing"),
        ({"confidencePpm": 950_000.5}, "it must be a whole number"),
    ],
)
def test_a_wrong_task_is_told(bare_job: Job, task: dict[str, Any], says: str) -> None:
    bare_job.write_task("task.json", {"kind": "evaluate", "models": MODELS, "confidencePpm": 950_000, **task})
    with pytest.raises(InputError, match=says):
        evaluate_site(bare_job.folders)


def test_a_missing_adapter_is_told(evaluation: Job) -> None:
    shutil.rmtree(evaluation.root / "task" / "champion")
    with pytest.raises(InputError, match=r"champion/adapter_model\.safetensors cannot be read as safetensors"):
        evaluate_site(evaluation.folders)
    assert not (evaluation.root / "out" / "result").exists()
