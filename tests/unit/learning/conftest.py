"""A site's Job on a tiny base package: inputs as the agent stages them, ready to be spoilt by a test."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from concordat.tensors import Tensors, write_tensors
from concordat_learning.data import TRAIN, VALIDATION, Examples
from concordat_learning.entry import Folders
from concordat_learning.tensors import read_adapter
from tests.support.contracts import IMAGE, contract

CLASSES, SHAPE = 3, (1, 4, 4)
CONFIG = {
    "image_size": SHAPE[1],
    "patch_size": 2,
    "num_channels": SHAPE[0],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TARGETS = ["fc1", "fc2", "q_proj", "v_proj"]
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": TARGETS}


def examples(count: int, seed: int) -> Examples:
    """Images of which the mean brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = (labels[:, None, None, None] + rng.uniform(0, 1, (count, *SHAPE))) / CLASSES
    return Examples(images.astype(np.float32), labels.astype(np.int64))


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with base/ and adapter/; imports torch."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers.models.vit.configuration_vit import ViTConfig
    from transformers.models.vit.modeling_vit import ViTForImageClassification

    folder = tmp_path_factory.mktemp("package")
    base, adapter = folder / "base", folder / "adapter"
    adapter.mkdir()
    torch.manual_seed(0)
    network = ViTForImageClassification(ViTConfig(**CONFIG, num_labels=CLASSES))
    network.save_pretrained(base)
    described = {
        "schema": "concordat.dev/base-package/v1",
        "task": "image-classification",
        "inputShape": list(SHAPE),
        "classes": CLASSES,
    }
    (base / "package.json").write_text(json.dumps(described))
    (adapter / "adapter_config.json").write_text(json.dumps(LORA))
    peft = get_peft_model(network, LoraConfig(r=2, lora_alpha=4, target_modules=TARGETS))
    state = get_peft_model_state_dict(peft, save_embedding_layers=False)
    tensors = {name: tensor.detach().numpy() for name, tensor in state.items()}
    (adapter / "adapter_model.safetensors").write_bytes(write_tensors(tensors))
    return folder


@dataclass
class Job:
    """The folders of one Job, and ways to change what is in them."""

    root: Path
    contract: dict[str, Any] = field(default_factory=dict)

    @property
    def folders(self) -> Folders:
        """As the command line gives them."""
        return Folders(*(self.root / name for name in ("base", "task", "data", "out")))

    def stage(self, **changes: Any) -> None:
        """Write contract.json, with members of budget or recipe replaced, and task.json."""
        fields: dict[str, Any] = {
            "budget": {"maxSteps": 8, "maxWallSeconds": 600},
            "recipe": {"image": IMAGE, "trainFactor": "B", "batchSize": 4, "learningRate": "0.01", "seed": 5},
            "aggregation": {"rule": "Mean", "maxFaultySites": 0},
        }
        for name, members in changes.items():
            fields[name] = {**fields[name], **members}
        self.contract = contract(**fields).wire()
        self.write_task("contract.json", self.contract)
        self.write_task("task.json", {"kind": "train", "site": "site-a"})

    def write_task(self, name: str, value: Any) -> None:
        """Replace a JSON file of the task."""
        (self.root / "task" / name).write_text(json.dumps(value))

    def write_data(self, name: str, **fields: Any) -> None:
        """Replace a data file; fields not given are those of good data."""
        good = examples(24, seed=1 if name == TRAIN else 2)
        (self.root / "data" / name).write_bytes(write_tensors({"images": good.images, "labels": good.labels, **fields}))

    def data(self, name: str) -> dict[str, Any]:
        """The tensors of a data file."""
        tensors: dict[str, Any] = load_file(self.root / "data" / name)
        return tensors

    def result(self, name: str) -> bytes:
        """A file that the Job handed over."""
        return (self.root / "out" / "result" / name).read_bytes()

    def parent(self) -> Tensors:
        """The adapter that training starts from."""
        return read_adapter(self.root / "task" / "parent" / "adapter_model.safetensors")

    def candidate(self) -> Tensors:
        """The adapter that training made."""
        return read_adapter(self.root / "out" / "result" / "adapter_model.safetensors")


@pytest.fixture
def bare_job(tmp_path: Path) -> Job:
    """Task and data, but no base package and no adapter: for what must be told before torch is imported."""
    for name in ("base", "task", "data", "out"):
        (tmp_path / name).mkdir()
    described = {
        "schema": "concordat.dev/base-package/v1",
        "task": "image-classification",
        "inputShape": list(SHAPE),
        "classes": CLASSES,
    }
    (tmp_path / "base" / "package.json").write_text(json.dumps(described))
    made = Job(tmp_path)
    made.stage()
    for name in (TRAIN, VALIDATION):
        made.write_data(name)
    return made


@pytest.fixture
def job(bare_job: Job, package: Path) -> Job:
    """A complete training Job."""
    shutil.rmtree(bare_job.root / "base")
    shutil.copytree(package / "base", bare_job.root / "base")
    shutil.copytree(package / "adapter", bare_job.root / "task" / "parent")
    return bare_job
