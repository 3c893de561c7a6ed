"""Adapters of different ranks and scales in one form: as updates of one parent, whose weight changes can be averaged.

Adapter i changes the base model by W_i = s_i·B_i·A_i, and its parent by D_i = W_i - W_0; without a parent W_0 is zero.
Factors of a lower rank are padded with zeros, and s_i / s goes into one of them: neither changes a product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, Module
from concordat.protocol.adapter_config import LoraConfig
from concordat.tensors import Tensors

_PARTNER = {Factor.A: Factor.B, Factor.B: Factor.A}


@dataclass(frozen=True, eq=False)
class Aligned:
    """Updates in the shapes of one parent."""

    parent: Adapter
    """At the largest rank and the output's scale; it changes nothing where none was given."""
    updates: list[Tensors]
    """Deltas of both factors: parent + update makes the products of the adapter."""
    factor: Factor
    """The only factor in which they differ, so that its average is exact; otherwise Both."""
    ranks: dict[str, int]
    """The output's rank, by module."""


def align(adapters: Sequence[Adapter], output: LoraConfig, parent: Adapter | None = None) -> Aligned:
    """Return the adapters as updates of the parent, for an output of these settings.

    All have the same modules with the same inputs and outputs (`check_alike`). Raises AdapterConfigError for settings
    that give a module no rank or scale.
    """
    everyone = [*adapters] if parent is None else [*adapters, parent]
    form = {name: output.scaling(name) for name in everyone[0].modules}
    widest = {name: max((one.modules[name] for one in everyone), key=lambda m: m.rank) for name in form}
    ranks = {name: rank for name, (rank, _) in form.items()}
    same_rank = all(module.rank == ranks[name] for name, module in widest.items())
    factor = _differing(everyone, widest) if same_rank else Factor.BOTH
    tensors = [
        {
            module.tensor_name(f): _factor(module, f, factor, widest[name], form[name][1])
            for name, module in one.modules.items()
            for f in (Factor.A, Factor.B)
        }
        for one in everyone
    ]
    # Without a parent, only the factor that all share is not zero.
    root = {
        name: tensor if parent is not None or name in _held(everyone[0], factor) else np.zeros_like(tensor)
        for name, tensor in tensors[-1].items()
    }
    updates = [{name: one[name] - root[name] for name in root} for one in tensors[: len(adapters)]]
    modules = {
        name: Module(name, root[module.tensor_name(Factor.A)], root[module.tensor_name(Factor.B)], form[name][1])
        for name, module in everyone[0].modules.items()
    }
    return Aligned(Adapter(modules), updates, factor, ranks)


def _differing(adapters: Sequence[Adapter], widest: Mapping[str, Module]) -> Factor:
    """Return the factor that differs, where the other is that of the widest, up to each one's rank, and not zero."""
    for trained, held in _PARTNER.items():
        if any(module.factor(held).any() for module in widest.values()) and all(
            np.array_equal(_padded(module.factor(held), held, module.rank), _cut(widest[name], held, module.rank))
            for one in adapters
            for name, module in one.modules.items()
        ):
            return trained
    return Factor.BOTH


def _held(adapter: Adapter, trained: Factor) -> set[str]:
    held = _PARTNER.get(trained)
    return set() if held is None else {module.tensor_name(held) for module in adapter.modules.values()}


def _factor(module: Module, factor: Factor, trained: Factor, widest: Module, scale: float) -> NDArray[np.float32]:
    """Return one factor at the widest's rank. The trained one, or else B, takes the change of scale."""
    if factor is _PARTNER.get(trained):
        return _padded(widest.factor(factor), factor, widest.rank)
    out = _padded(module.factor(factor), factor, widest.rank)
    if module.scale != scale and factor is (Factor.B if trained is Factor.BOTH else trained):
        with np.errstate(over="ignore"):
            out *= module.scale / scale
    return out


def _padded(tensor: NDArray[np.float32], factor: Factor, rank: int) -> NDArray[np.float32]:
    missing = (0, rank - tensor.shape[0 if factor is Factor.A else 1])
    return np.pad(tensor.astype(np.float32), (missing, (0, 0)) if factor is Factor.A else ((0, 0), missing))


def _cut(module: Module, factor: Factor, rank: int) -> NDArray[np.float32]:
    tensor = module.factor(factor)
    return (tensor[:rank] if factor is Factor.A else tensor[:, :rank]).astype(np.float32)
