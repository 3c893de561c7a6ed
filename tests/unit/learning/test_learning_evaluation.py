"""An evaluation Job on a tiny model."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from concordat.protocol.evaluation import EvaluationEvidence
from concordat.tensors import write_tensors
from concordat_learning.errors import InputError
from concordat_learning.evaluate import evaluate_site
from tests.support.learning import Job

pytestmark = pytest.mark.xdist_group("torch")

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
    found = EvaluationEvidence.from_bytes(evaluation.result("evaluation.json"))
    assert found.examples == 24
    assert found.models.champion == found.models.parent == found.models.candidate
    assert found.models.parent.low_ppm < found.models.parent.ppm < found.models.parent.high_ppm


def test_adapters_are_told_apart(evaluation: Job) -> None:
    moved = {n: t + 1 if ".lora_B." in n else t for n, t in evaluation.parent().items()}
    (evaluation.root / "task" / "candidate" / "adapter_model.safetensors").write_bytes(write_tensors(moved))
    evaluate_site(evaluation.folders)
    models = EvaluationEvidence.from_bytes(evaluation.result("evaluation.json")).models
    assert models.champion == models.parent != models.candidate


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"kind": "train"}, "task.json: kind: Input should be 'evaluate', got 'train'"),
        (
            {"models": ["../../data"]},
            r"models\.0: Input should be 'parent', .* or 'champion', got '../../data'",
        ),
        ({"models": ["parent", "parent"]}, "a model is named twice"),
        ({"models": []}, "models: List should have at least 1 item"),
        ({"models": "parent"}, "models: Input should be a valid array, got 'parent'"),
        ({"confidencePpm": 1_000_000}, "confidencePpm: Input should be less than or equal to 999999, got 1000000"),
        ({"confidencePpm": None}, "confidencePpm: Input should be a valid integer"),
        ({"confidencePpm": 950_000.5}, "confidencePpm: Input should be a valid integer"),
    ],
)
def test_a_wrong_task_is_told(bare_job: Job, task: dict[str, Any], says: str) -> None:
    bare_job.write_task("task.json", {"kind": "evaluate", "models": MODELS, "confidencePpm": 950_000, **task})
    with pytest.raises(InputError, match=says):
        evaluate_site(bare_job.folders)


def test_a_missing_adapter_is_told(evaluation: Job) -> None:
    shutil.rmtree(evaluation.root / "task" / "champion")
    with pytest.raises(InputError, match=r"champion/adapter_model\.safetensors: No such file or directory"):
        evaluate_site(evaluation.folders)
    assert not (evaluation.root / "out" / "result").exists()
