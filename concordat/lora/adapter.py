"""A plain LoRA adapter: its modules, read from peft's tensors and adapter_config.json (Hu et al., ICLR 2022).

Module m changes its weight by s·B·A: A is (r, k), B is (d, r), and the configuration says s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.protocol.adapter_config import AdapterConfigError, LoraConfig, read_lora_config
from concordat.tensors import Named, shown

_SUFFIX = {Factor.A: ".lora_A.weight", Factor.B: ".lora_B.weight"}
_OTHERS = {"lora_embedding_": "an embedding", "lora_magnitude_vector": "DoRA", ".bias": "a bias"}


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


def read_adapter(tensors: Named, config: bytes | Mapping[str, Any]) -> Adapter:
    """Return the adapter of peft's tensors `….lora_A.weight`, `….lora_B.weight` and its adapter_config.json.

    Raises LoraError for anything but plain LoRA on linear layers, for a factor without its partner, for shapes and
    ranks that do not fit each other or the configuration, and for values that are not finite.
    """
    names = sorted({_module_name(name) for name in tensors})
    if not names:
        raise LoraError("the adapter has no LoRA tensor; give the tensors of adapter_model.safetensors")
    try:
        settings = read_lora_config(config)
        return Adapter({name: _module(name, tensors, settings) for name in names})
    except AdapterConfigError as error:
        raise LoraError(f"adapter_config.json: {error}") from error


def trained_factors(factor: Factor) -> tuple[Factor, ...]:
    """Return the factors that have a tensor in an update: A, B, or both."""
    return (Factor.A, Factor.B) if factor is Factor.BOTH else (factor,)


def _module_name(tensor: str) -> str:
    for suffix in _SUFFIX.values():
        if tensor.endswith(suffix):
            return tensor.removesuffix(suffix)
    what = next((what for part, what in _OTHERS.items() if part in tensor), "no LoRA factor")
    raise LoraError(f"{shown(tensor)} is {what}; only plain LoRA on linear layers can be averaged, leave it out")


def _module(name: str, tensors: Named, config: LoraConfig) -> Module:
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
    rank, scale = config.scaling(name)
    if a.shape[0] != rank or b.shape[1] != rank:
        raise LoraError(
            f"{shown(name)}: A is {list(a.shape)} and B is {list(b.shape)}, but the rank by adapter_config.json is "
            f"{rank}; correct r or rank_pattern"
        )
    return Module(name, a, b, scale)
