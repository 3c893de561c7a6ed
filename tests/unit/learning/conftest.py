"""A site's Job on a tiny base package: inputs as the agent stages them, ready to be spoilt by a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from concordat.tensors import write_tensors
from concordat_learning.data import TRAIN, VALIDATION
from tests.support.learning import CLASSES, SHAPE, Job

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
