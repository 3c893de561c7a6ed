"""The demo's base package and first adapter. Imports torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers.models.vit.configuration_vit import ViTConfig
from transformers.models.vit.modeling_vit import ViTForImageClassification

from concordat.api.round import Factor
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE
from concordat.tensors import write_tensors
from concordat_learning import package
from concordat_learning.data import Examples
from concordat_learning.digits import CLASSES, INPUT_SHAPE
from concordat_learning.loop import LoopSettings, fit
from concordat_learning.model import load_base

BASE_STEPS = 120
"""Few, so that there is much left to learn: what a round adds must stand out from the noise of 360 examples."""
_BASE_RATE = 1e-3
_BATCH = 32
_LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": ["fc1", "fc2", "k_proj", "o_proj", "q_proj", "v_proj"],
}


def write_base(out: Path, public: Examples, seed: int, steps: int = BASE_STEPS) -> None:
    """Make `out`/base, pre-trained on the public examples, and `out`/adapter, which changes nothing yet (B is zero)."""
    base, adapter = out / "base", out / "adapter"
    for folder in (base, adapter):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    described = {
        "schema": package.SCHEMA,
        "task": package.TASK,
        "inputShape": list(INPUT_SHAPE),
        "classes": CLASSES,
    }
    _write_json(base / "package.json", described)
    _write_json(base / ADAPTER_CONFIG_FILE, _LORA)
    _write_json(adapter / ADAPTER_CONFIG_FILE, _LORA)
    _pretrained(public, seed, steps).save_pretrained(base)
    torch.manual_seed(seed)
    network = load_base(base, package.read_package(base))
    lora = LoraConfig(**package.read_lora(adapter))
    state = get_peft_model_state_dict(get_peft_model(network, lora), save_embedding_layers=False)
    (adapter / "adapter_model.safetensors").write_bytes(
        write_tensors({n: t.detach().numpy() for n, t in state.items()})
    )


def _pretrained(public: Examples, seed: int, steps: int) -> Any:
    torch.manual_seed(seed)
    network = ViTForImageClassification(
        ViTConfig(
            image_size=INPUT_SHAPE[1],
            patch_size=2,
            num_channels=INPUT_SHAPE[0],
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=CLASSES,
        )
    )
    network.train()

    def loss(examples: Examples) -> torch.Tensor:
        logits = network(pixel_values=torch.from_numpy(examples.images)).logits
        return torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels))

    fit(list(network.parameters()), loss, public, LoopSettings(Factor.BOTH, _BATCH, _BASE_RATE, seed), steps)
    return network.eval()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
