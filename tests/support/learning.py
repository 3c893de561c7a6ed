"""The folders of a Job of the learning image, ready to be spoilt by a test."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from concordat.tensors import Tensors, write_tensors
from concordat_learning.data import TRAIN, Examples
from concordat_learning.entry import Folders
from concordat_learning.tensors import read_adapter
from tests.support.contracts import IMAGE, contract

CLASSES, SHAPE = 3, (1, 4, 4)


def examples(count: int, seed: int) -> Examples:
    """Images of which the mean brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = (labels[:, None, None, None] + rng.uniform(0, 1, (count, *SHAPE))) / CLASSES
    return Examples(images.astype(np.float32), labels.astype(np.int64))


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
