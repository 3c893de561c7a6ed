"""Adapters as peft's save_pretrained writes them: folders of adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concordat.lora.adapter import Adapter, LoraError, read_adapter
from concordat.protocol.adapter_config import AdapterConfigError, LoraConfig, read_lora_config
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from concordat.tensors import FLOATS, Named, TensorError, map_tensors, shown, write_tensors

_CONFIG_LIMIT = 1 << 20
_MUST_AGREE = {
    "base_model_name_or_path": "train all from one base model, and if it only has two names write one into both files",
    "revision": "train all from one revision of the base model",
    "fan_in_fan_out": "the same layer is stored in two ways; train all from one base model",
}


@dataclass(frozen=True, eq=False)
class AdapterFolder:
    """One adapter on the disk; its tensors are read when they are looked at."""

    path: Path
    config: LoraConfig
    adapter: Adapter

    @property
    def config_path(self) -> Path:
        return self.path / ADAPTER_CONFIG_FILE

    @property
    def tensors_path(self) -> Path:
        return self.path / ADAPTER_FILE


def read_folder(path: Path) -> AdapterFolder:
    """Return the adapter of a folder, float32, float16 or bfloat16. Raises LoraError that names the file."""
    try:
        with (path / ADAPTER_CONFIG_FILE).open("rb") as file:
            config = read_lora_config(file.read(_CONFIG_LIMIT))
    except OSError as error:
        raise LoraError(
            f"{path / ADAPTER_CONFIG_FILE} cannot be read: {error.strerror}; give a folder as peft's save_pretrained "
            "writes it"
        ) from error
    except AdapterConfigError as error:
        raise LoraError(f"{path / ADAPTER_CONFIG_FILE}: {error}") from error
    tensors = path / ADAPTER_FILE
    try:
        return AdapterFolder(path, config, read_adapter(map_tensors(tensors, FLOATS), config.settings))
    except OSError as error:
        raise LoraError(
            f"{tensors} cannot be read: {error.strerror}; only safetensors is accepted, which peft's save_pretrained "
            "writes unless safe_serialization is False"
        ) from error
    except (TensorError, LoraError) as error:
        raise LoraError(f"{tensors}: {error}") from error


def write_folder(path: Path, tensors: Named, config: LoraConfig) -> None:
    """Write a folder that peft's from_pretrained loads. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ADAPTER_FILE).write_bytes(write_tensors(tensors))
    (path / ADAPTER_CONFIG_FILE).write_text(json.dumps(dict(config.settings), indent=2, sort_keys=True) + "\n")


def check_alike(folders: Sequence[AdapterFolder]) -> None:
    """Raises LoraError unless all adapt the same layers of one base model. Ranks and scales may differ.

    A base model or revision that a file does not name is taken to be that of the others.
    """
    for field, remedy in _MUST_AGREE.items():
        named = [(folder, value) for folder in folders if (value := _stated(folder, field)) is not None]
        for folder, value in named[1:]:
            if value != named[0][1]:
                raise _differ(folder, named[0][0], field, value, named[0][1], remedy)
    first, *others = folders
    for folder in others:
        for name in sorted(folder.adapter.modules.keys() ^ first.adapter.modules.keys()):
            owner = folder if name in folder.adapter.modules else first
            left, right = (_targets(one.config.settings) for one in (folder, first))
            remedy = f"{shown(name)} is adapted only in {owner.path}; train the same modules everywhere"
            raise _differ(folder, first, "target_modules", left, right, remedy)
        for name, module in folder.adapter.modules.items():
            left, right = ([len(m.b), m.a.shape[1]] for m in (module, first.adapter.modules[name]))
            if left != right:
                size = f"the size of {shown(name)}"
                raise _differ(folder, first, size, left, right, "the base models differ; train all from one")


def output_config(
    folders: Sequence[AdapterFolder], parent: AdapterFolder | None = None, rank: int | None = None
) -> LoraConfig:
    """Return the settings of an adapter made of these: of the parent, or else of the one of the largest rank.

    The rank of a module is `rank`, or the parent's, or the largest. lora_alpha stays as it is, and with it the scale of
    a module whose rank does: what is written says which scale that is.
    """
    modules = folders[0].adapter.modules
    template = parent or max(folders, key=lambda folder: sum(m.rank for m in folder.adapter.modules.values()))
    if rank is not None:
        return LoraConfig({**template.config.settings, "r": rank, "rank_pattern": {}})
    largest = {name: max(folder.adapter.modules[name].rank for folder in folders) for name in modules}
    if parent is not None or all(m.rank == largest[name] for name, m in template.adapter.modules.items()):
        return template.config
    most = max(largest.values())
    # peft reads keys as regular expressions that match the end of a name.
    lower = {_pattern(name): own for name, own in largest.items() if own != most}
    return LoraConfig({**template.config.settings, "r": most, "rank_pattern": lower})


def _pattern(module: str) -> str:
    return "^" + module.removeprefix("base_model.model.").replace(".", r"\.")


def _stated(folder: AdapterFolder, field: str) -> Any:
    value = folder.config.settings.get(field)
    return bool(value) if field == "fan_in_fan_out" else value or None


def _targets(settings: Mapping[str, Any]) -> Any:
    # peft writes a set in whatever order it has.
    targets = settings.get("target_modules")
    return sorted(map(str, targets)) if isinstance(targets, list) else targets


def _differ(one: AdapterFolder, other: AdapterFolder, field: str, left: Any, right: Any, remedy: str) -> LoraError:
    left, right = (shown(json.dumps(value)) for value in (left, right))
    return LoraError(f"{one.config_path}: {field} is {left}, and {right} in {other.config_path}: {remedy}")
