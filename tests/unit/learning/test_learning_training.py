"""A training Job on a tiny model: what it changes, what it leaves, and how it keeps to its budget."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from concordat.protocol.contract import Contract
from concordat.protocol.training import TrainingEvidence
from concordat.tensors import check_schema
from concordat_agent.updates.gates import learned
from concordat_learning.errors import InputError
from concordat_learning.train import train_site
from tests.support.learning import Job

pytestmark = pytest.mark.xdist_group("torch")


def ticking() -> Iterator[float]:
    """A clock that advances by a second each time it is read, after the 0 at which the Job started."""
    return map(float, itertools.count(1))


def train(job: Job) -> None:
    train_site(job.folders, started=0.0, clock=lambda: 0.0)


@pytest.mark.parametrize("factor", ["A", "B", "Both"])
def test_only_the_factor_of_the_contract_changes(job: Job, factor: str) -> None:
    job.stage(recipe={"trainFactor": factor})
    if factor != "B":
        # B starts at zero, and then A has no gradient.
        parent = job.parent()
        from concordat.tensors import write_tensors

        moved = {n: t + np.float32(0.1) if ".lora_B." in n else t for n, t in parent.items()}
        (job.root / "task" / "parent" / "adapter_model.safetensors").write_bytes(write_tensors(moved))
    train(job)
    parent, candidate = job.parent(), job.candidate()
    assert candidate.keys() == parent.keys()
    changed = {name for name in parent if candidate[name].tobytes() != parent[name].tobytes()}
    assert changed == {name for name in parent if factor == "Both" or f".lora_{factor}." in name}


def test_the_agent_accepts_what_the_trainer_leaves(job: Job) -> None:
    train(job)
    evidence = TrainingEvidence.from_bytes(job.result("evidence.json"))
    assert (evidence.steps, evidence.examples, evidence.validation_examples) == (8, 24, 24)
    contract = Contract.model_validate(job.contract)
    parent = (job.root / "task" / "parent" / "adapter_model.safetensors").read_bytes()
    delta = learned(contract, job.result("adapter_model.safetensors"), parent)
    check_schema(delta, job.parent(), contract.recipe.train_factor)
    assert all(tensor.any() for tensor in delta.values())


def test_training_learns(job: Job) -> None:
    """The loss of four examples, all in one batch, falls."""
    few = {name: job.data("train.safetensors")[name][:4] for name in ("images", "labels")}
    job.write_data("train.safetensors", **few)
    job.stage(budget={"maxSteps": 60}, recipe={"learningRate": "0.05"})
    train(job)
    evidence = json.loads(job.result("evidence.json"))
    assert float(evidence["lastLoss"]) < float(evidence["firstLoss"])


def test_the_seed_decides_everything(job: Job) -> None:
    made = []
    for seed in (5, 5, 6):
        job.stage(recipe={"seed": seed})
        train(job)
        made.append((job.result("adapter_model.safetensors"), job.result("evidence.json")))
        shutil.rmtree(job.root / "out" / "result")
    assert made[0] == made[1]
    assert made[0][0] != made[2][0]


def test_two_sites_of_a_round_draw_differently(job: Job) -> None:
    train(job)
    first = job.result("adapter_model.safetensors")
    shutil.rmtree(job.root / "out" / "result")
    (only,) = job.contract["sites"]
    job.write_task("contract.json", {**job.contract, "sites": [only, {**only, "name": "site-b"}]})
    job.write_task("task.json", {"kind": "train", "site": "site-b"})
    train(job)
    assert job.result("adapter_model.safetensors") != first


def test_the_budget_of_seconds_ends_training(job: Job) -> None:
    job.stage(budget={"maxSteps": 1000, "maxWallSeconds": 20})
    clock = ticking()
    train_site(job.folders, started=0.0, clock=lambda: next(clock))
    evidence = json.loads(job.result("evidence.json"))
    # Judging the parent reads the clock at 1 and 2: a second, kept for the candidate, as is a tenth of the budget.
    # So the last step is begun before 20 - 2 - 1 = 17, that is at 3, 4, … 16.
    assert evidence["steps"] == 14
    assert float(evidence["wallSeconds"]) < 20


def test_a_budget_used_up_before_the_first_step_is_an_error(job: Job) -> None:
    job.stage(budget={"maxWallSeconds": 10})
    with pytest.raises(InputError, match=r"budget\.maxWallSeconds is used up before the first step"):
        train_site(job.folders, started=0.0, clock=lambda: 100.0)
    assert not (job.root / "out" / "result").exists()


def test_a_loss_that_explodes_is_an_error_with_a_remedy(job: Job) -> None:
    job.stage(budget={"maxSteps": 200}, recipe={"learningRate": "999999"})
    with pytest.raises(InputError, match=r"lower recipe\.learningRate"):
        train(job)
    assert not (job.root / "out" / "result").exists()


def test_a_second_pod_of_the_job_leaves_the_result_alone(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    result: Path = job.root / "out" / "result"
    result.mkdir()
    (result / "evidence.json").write_text("{}")
    train(job)
    assert job.result("evidence.json") == b"{}"
    assert "handed over its result already" in capsys.readouterr().out
