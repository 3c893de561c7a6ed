"""What the base package and a LoRA adapter's configuration say: read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concordat.protocol.adapter_config import AdapterConfigError, read_lora_config
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE
from concordat_learning.errors import InputError
from concordat_learning.fields import Fields, read_file, read_json

SCHEMA = "concordat.dev/base-package/v1"
TASK = "image-classification"
_CONFIG_LIMIT = 1 << 20


@dataclass(frozen=True)
class BasePackage:
    """package.json: what the base model takes and tells apart."""

    input_shape: tuple[int, ...]
    """Channels, height, width."""
    classes: int


def read_package(base: Path) -> BasePackage:
    """Read package.json of a base package. Raises InputError."""
    fields = Fields(read_json(base / "package.json"), str(base / "package.json"))
    fields.constant("schema", SCHEMA)
    fields.constant("task", TASK)
    shape = fields.value("inputShape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 0 < n <= 4096 for n in shape):
        raise InputError(f"{fields.where}: inputShape is {shape!r}; it must be [channels, height, width]")
    return BasePackage(tuple(shape), fields.integer("classes", 2, 100_000))


def read_lora(adapter: Path) -> dict[str, Any]:
    """Read adapter_config.json: the settings for peft.LoraConfig. Raises InputError for anything but plain LoRA."""
    path = adapter / ADAPTER_CONFIG_FILE
    try:
        return read_lora_config(read_file(path, _CONFIG_LIMIT)).for_peft()
    except AdapterConfigError as error:
        raise InputError(f"{path}: {error}") from None
