"""What the base package says of itself, and what a LoRA adapter's configuration may say: read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concordat_learning.errors import InputError
from concordat_learning.fields import Fields, read_json

SCHEMA = "concordat.dev/base-package/v1"
TASK = "image-classification"

# What peft writes besides the settings below, and what changes nothing about the weights or the function.
_NEUTRAL = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"}
    | {"task_type", "bias", "r", "lora_alpha", "lora_dropout", "target_modules", "runtime_config"}
    | {"megatron_core", "qalora_group_size"}
)
# How the adapter's weights began is of no interest here; PiSSA, OLoRA and the like change the base model's as well.
_INIT = (True, False, "gaussian", "orthogonal")


@dataclass(frozen=True)
class BasePackage:
    """package.json: what the base model takes and tells apart."""

    input_shape: tuple[int, ...]
    """Channels, height, width."""
    classes: int


@dataclass(frozen=True)
class LoraSettings:
    """adapter_config.json, reduced to plain LoRA on named linear layers."""

    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]


def read_package(base: Path) -> BasePackage:
    """Read package.json of a base package. Raises InputError."""
    fields = Fields(read_json(base / "package.json"), str(base / "package.json"))
    fields.constant("schema", SCHEMA)
    fields.constant("task", TASK)
    shape = fields.value("inputShape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n <= 4096 for n in shape):
        raise InputError(f"{fields.where}: inputShape is {shape!r}; it must be [channels, height, width]")
    return BasePackage(tuple(shape), fields.integer("classes", 2, 100_000))


def read_lora(adapter: Path) -> LoraSettings:
    """Read adapter_config.json. Raises InputError for anything but plain LoRA: it could not be averaged exactly."""
    path = adapter / "adapter_config.json"
    fields = Fields(read_json(path), str(path))
    fields.constant("peft_type", "LORA")
    fields.constant("bias", "none")
    for name, value in fields.members():
        neutral = value in _INIT if name == "init_lora_weights" else name in _NEUTRAL
        if not neutral and not _off(value):
            raise InputError(f"{path}: {name} is {value!r}; only plain LoRA is supported, leave it out")
    targets = fields.value("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(t, str) and t for t in targets):
        raise InputError(f"{path}: target_modules is {targets!r}; it must be a list of layer names")
    return LoraSettings(
        rank=fields.integer("r", 1, 4096),
        alpha=fields.real("lora_alpha", 1e-6, 1e6),
        dropout=fields.real("lora_dropout", 0, 0.99) if fields.has("lora_dropout") else 0.0,
        target_modules=tuple(sorted(targets)),
    )


def _off(value: Any) -> bool:
    return value is None or value is False or value == {} or value == []
