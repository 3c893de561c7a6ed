"""A plain LoRA adapter: its modules, read from peft's tensors and adapter_config.json (Hu et al., ICLR 2022).

Module m changes its weight by s·B·A: A is (r, k), B is (d, r), and s = lora_alpha / r, or lora_alpha / √r where
use_rslora is set (Kalajdzievski, arXiv 2312.03732).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.artifacts.tensors import shown

Named = Mapping[str, NDArray[Any]]

_SUFFIX = {Factor.A: ".lora_A.weight", Factor.B: ".lora_B.weight"}
_PREFIX = "base_model.model."
# Fields of adapter_config.json that say nothing about the function, or that are read below.
_KNOWN = frozenset(
    {"auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode"}
    | {"layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_version"}
    | {"qalora_group_size", "r", "rank_pattern", "alpha_pattern", "revision", "runtime_config", "target_modules"}
    | {"task_type", "use_rslora"}
)
_REQUIRED = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian", "orthogonal")}
_OTHERS = {"lora_embedding_": "an embedding", "lora_magnitude_vector": "DoRA", ".bias": "a bias"}
# peft reads the keys of patterns as regular expressions. Without quantifiers they cannot be made to run for hours.
_PATTERN = re.compile(r"\^?(?:[\w.-]|\\\.)+")


class LoraError(Exception):
    """The adapter or an update cannot be averaged exactly."""


@dataclass(frozen=True, eq=False)
class Module:
    """One adapted linear layer."""

    name: str
    a: NDArray[Any]
    """(r, k)"""
    b: NDArray[Any]
    """(d, r)"""
    scale: float
    """s: the layer's weight changes by s·b·a."""

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def tensor_name(self, factor: Factor) -> str:
        """peft's name of factor A or B."""
        return self.name + _SUFFIX[factor]

    def factor(self, factor: Factor) -> NDArray[Any]:
        """Factor A or B."""
        return self.a if factor is Factor.A else self.b


@dataclass(frozen=True, eq=False)
class Adapter:
    """All adapted layers of a model."""

    modules: dict[str, Module]
    """By module name, sorted."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Both factors of every module, in peft's names."""
        return {m.tensor_name(f): m.factor(f) for m in self.modules.values() for f in (Factor.A, Factor.B)}


def read_adapter(tensors: Named, config: Mapping[str, Any]) -> Adapter:
    """The adapter of peft's tensors `….lora_A.weight`, `….lora_B.weight` and its adapter_config.json.

    Raises LoraError for anything but plain LoRA on linear layers, for a factor without its partner, for shapes and
    ranks that do not fit each other or the configuration, and for values that are not finite.
    """
    _check_config(config)
    names = sorted({_module_name(name) for name in tensors})
    if not names:
        raise LoraError("the adapter has no LoRA tensor; give the tensors of adapter_model.safetensors")
    return Adapter({name: _module(name, tensors, config) for name in names})


def trained_factors(factor: Factor) -> tuple[Factor, ...]:
    """The factors that have a tensor in an update: A, B, or both."""
    return (Factor.A, Factor.B) if factor is Factor.BOTH else (factor,)


def _module_name(tensor: str) -> str:
    for suffix in _SUFFIX.values():
        if tensor.endswith(suffix):
            return tensor.removesuffix(suffix)
    what = next((what for part, what in _OTHERS.items() if part in tensor), "no LoRA factor")
    raise LoraError(f"{shown(tensor)} is {what}; only plain LoRA on linear layers can be averaged, leave it out")


def _module(name: str, tensors: Named, config: Mapping[str, Any]) -> Module:
    pair = []
    for suffix in _SUFFIX.values():
        tensor = tensors.get(name + suffix)
        if tensor is None:
            raise LoraError(f"{shown(name)} has no {suffix[1:]}; an adapter needs both factors of a module")
        if tensor.ndim != 2:
            raise LoraError(
                f"{shown(name + suffix)} has shape {list(tensor.shape)}; only linear layers can be averaged, "
                "whose factors have two dimensions"
            )
        if not np.isfinite(tensor).all():
            raise LoraError(f"{shown(name + suffix)} has a value that is not finite; the adapter is unusable")
        pair.append(tensor)
    a, b = pair
    rank, scale = _scaling(name, config)
    if a.shape[0] != rank or b.shape[1] != rank:
        raise LoraError(
            f"{shown(name)}: A is {list(a.shape)} and B is {list(b.shape)}, but the rank by adapter_config.json is "
            f"{rank}; correct r or rank_pattern"
        )
    return Module(name, a, b, scale)


def _check_config(config: Mapping[str, Any]) -> None:
    for name, value in config.items():
        if name in _REQUIRED:
            if value not in _REQUIRED[name]:
                accepted = " or ".join(map(repr, _REQUIRED[name]))
                raise LoraError(f"adapter_config.json: {name} is {shown(repr(value))}; it must be {accepted}")
        elif name not in _KNOWN and value is not None and value is not False and value not in ({}, []):
            raise LoraError(
                f"adapter_config.json: {shown(name)} is {shown(repr(value))}; only plain LoRA can be averaged, "
                "leave it out"
            )


def _scaling(name: str, config: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and s of a module."""
    rank = _setting(name, config, "rank_pattern", "r")
    alpha = _setting(name, config, "alpha_pattern", "lora_alpha")
    if not isinstance(rank, int):
        raise LoraError(f"adapter_config.json: the rank of {shown(name)} is {rank}; it must be a whole number")
    return rank, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _setting(name: str, config: Mapping[str, Any], patterns: str, default: str) -> int | float:
    """The number of the first pattern that is the end of the module's name, from one of its dots on; or the default."""
    value, found = config.get(default), default
    for pattern, number in (config.get(patterns) or {}).items():
        if not _PATTERN.fullmatch(pattern):
            raise LoraError(f"adapter_config.json: {patterns} has the key {shown(pattern)}; write a plain module name")
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", name.removeprefix(_PREFIX)):
            value, found = number, f"{patterns} of {shown(pattern)}"
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise LoraError(f"adapter_config.json: {found} is {shown(repr(value))}; it must be a positive number")
    return value
