"""adapter_config.json: which adapters hub and sites accept, and how each module of one is scaled.

Plain LoRA only: anything else could not be averaged exactly. An adapter accepted here is accepted by both sides.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Settings that say nothing about the function, or that `LoraConfig` reads.
_KNOWN = frozenset(
    {"auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode"}
    | {"layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_version"}
    | {"qalora_group_size", "r", "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules"}
    | {"task_type", "use_rslora"}
)
# How the adapter's weights began is of no interest, but PiSSA, OLoRA and the like change the base model's as well.
_REQUIRED = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian", "orthogonal")}
_PEFT_PREFIX = "base_model.model."
# peft reads the keys of patterns as regular expressions. Without quantifiers they cannot be made to run for hours.
_PATTERN = re.compile(r"\^?(?:[\w.-]|\\\.)+")
_SELECTING = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out")
_SHOWN = 80


class AdapterConfigError(ValueError):
    """The configuration is not one of plain LoRA. The message names setting, value and remedy."""


@dataclass(frozen=True)
class LoraConfig:
    """A plain LoRA adapter's settings."""

    settings: Mapping[str, Any] = field(repr=False)
    """As they stand in the file."""

    def scaling(self, module: str) -> tuple[int, float]:
        """Return rank and s of a module, by its name in the adapter file. Raises AdapterConfigError.

        s is lora_alpha / r, or lora_alpha / √r where use_rslora is set (Kalajdzievski, arXiv 2312.03732).
        """
        rank = self._number(module, "rank_pattern", "r")
        alpha = self._number(module, "alpha_pattern", "lora_alpha")
        if not isinstance(rank, int):
            raise AdapterConfigError(f"the rank of {_name(module)} is {rank}; it must be a whole number")
        return rank, alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def for_peft(self) -> dict[str, Any]:
        """Return what peft.LoraConfig needs to build the same adapter. Raises AdapterConfigError."""
        dropout = self.settings.get("lora_dropout") or 0.0
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise AdapterConfigError(f"lora_dropout is {_shown(dropout)}; it must be a number from 0 to below 1")
        return {
            "r": _rank(self.settings.get("r")),
            "lora_alpha": _positive("lora_alpha", self.settings.get("lora_alpha")),
            "lora_dropout": float(dropout),
            "use_rslora": bool(self.settings.get("use_rslora")),
            "rank_pattern": self._pattern("rank_pattern"),
            "alpha_pattern": self._pattern("alpha_pattern"),
            **{name: value for name in _SELECTING if (value := self.settings.get(name)) not in (None, False)},
        }

    def _pattern(self, name: str) -> dict[str, Any]:
        pattern = self.settings.get(name) or {}
        if not isinstance(pattern, dict):
            raise AdapterConfigError(f"{name} is {_shown(pattern)}; it must be an object")
        for key in pattern:
            if not _PATTERN.fullmatch(key):
                raise AdapterConfigError(f"{name} has the key {_name(key)}; write a plain module name")
        return pattern

    def _number(self, module: str, patterns: str, default: str) -> int | float:
        """Return a module's number: that of the first pattern that is the end of its name, from one of its dots on."""
        for pattern, number in self._pattern(patterns).items():
            if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module.removeprefix(_PEFT_PREFIX)):
                return _positive(f"{patterns} of {_name(pattern)}", number)
        return _positive(default, self.settings.get(default))


def read_lora_config(document: bytes | Mapping[str, Any]) -> LoraConfig:
    """Read adapter_config.json. Raises AdapterConfigError for anything but plain LoRA."""
    try:
        settings = json.loads(document) if isinstance(document, bytes) else document
    except (ValueError, RecursionError) as error:
        raise AdapterConfigError(f"not JSON: {error}") from None
    if not isinstance(settings, Mapping):
        raise AdapterConfigError("not a JSON object")
    for name, value in settings.items():
        if name in _REQUIRED:
            if value not in _REQUIRED[name]:
                accepted = " or ".join(map(repr, _REQUIRED[name]))
                raise AdapterConfigError(f"{name} is {_shown(value)}; it must be {accepted}")
        elif name not in _KNOWN and value is not None and value is not False and value not in ({}, []):
            raise AdapterConfigError(f"{_name(name)} is {_shown(value)}; only plain LoRA can be averaged, leave it out")
    return LoraConfig(settings)


def _rank(value: Any) -> int:
    rank = _positive("r", value)
    if not isinstance(rank, int):
        raise AdapterConfigError(f"r is {rank}; it must be a whole number")
    return rank


def _positive(name: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise AdapterConfigError(f"{name} is {_shown(value)}; it must be a positive number")
    return value


def _shown(value: Any) -> str:
    return ascii(value)[:_SHOWN]


def _name(text: str) -> str:
    return ascii(text)[1:-1][:_SHOWN]
