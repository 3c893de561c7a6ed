"""Random adapters and updates, and dense float64 references: the weight changes themselves, written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.lora import Adapter, read_adapter

Named = Mapping[str, NDArray[Any]]
Dense = NDArray[np.float64]


def build(
    rng: np.random.Generator, shapes: Mapping[str, tuple[int, int, int]], zero_b: bool = False, **config: Any
) -> Adapter:
    """An adapter of modules (d, k, r)."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, (d, k, r) in shapes.items():
        tensors[f"{name}.lora_A.weight"] = rng.normal(size=(r, k)).astype(np.float32)
        b = np.zeros((d, r)) if zero_b else rng.normal(size=(d, r))
        tensors[f"{name}.lora_B.weight"] = b.astype(np.float32)
    ranks = {name: r for name, (_, _, r) in shapes.items()}
    return read_adapter(tensors, {"r": 1, "lora_alpha": 3, "rank_pattern": ranks} | config)


def update(
    rng: np.random.Generator, parent: Adapter, factor: Factor, size: float = 1.0, rank: int | None = None
) -> dict[str, NDArray[Any]]:
    """A random delta, of the first `rank` components only if given."""
    out: dict[str, NDArray[Any]] = {}
    for name, module in parent.modules.items():
        if factor is not Factor.B:
            out[f"{name}.lora_A.weight"] = (size * rng.normal(size=module.a[:rank].shape)).astype(np.float32)
        if factor is not Factor.A:
            out[f"{name}.lora_B.weight"] = (size * rng.normal(size=module.b[:, :rank].shape)).astype(np.float32)
    return out


def weights(parent: Adapter, delta: Named | None = None) -> Dense:
    """s·B·A of parent + delta, all modules, flat."""
    return np.concatenate([matrix.ravel() for matrix in by_module(parent, delta).values()])


def by_module(parent: Adapter, delta: Named | None = None) -> dict[str, Dense]:
    delta = delta or {}
    out = {}
    for name, module in parent.modules.items():
        a = module.a.astype(np.float64) + delta.get(f"{name}.lora_A.weight", 0.0)
        b = module.b.astype(np.float64) + delta.get(f"{name}.lora_B.weight", 0.0)
        out[name] = module.scale * b @ a
    return out


def changes(parent: Adapter, updates: Sequence[Named]) -> Dense:
    """(n, all weights): what each update changes."""
    before = weights(parent)
    return np.stack([weights(parent, delta) - before for delta in updates])


def made(parent: Adapter, tensors: Named) -> Dense:
    """s·B·A of the adapter that an aggregation returned, all modules, flat."""
    products = [
        m.scale * tensors[f"{name}.lora_B.weight"].astype(np.float64) @ tensors[f"{name}.lora_A.weight"]
        for name, m in parent.modules.items()
    ]
    return np.concatenate([product.ravel() for product in products])


@st.composite
def parents(draw: st.DrawFn) -> tuple[Adapter, np.random.Generator]:
    """Adapters of all shapes and ranks, r above d and k too, fixed factors of lower rank among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
    shapes = draw(st.dictionaries(st.sampled_from(["q", "k", "v"]), shape, min_size=1))
    parent = build(rng, shapes, lora_alpha=draw(st.sampled_from([0.5, 8, 64])), use_rslora=draw(st.booleans()))
    for module in parent.modules.values():
        if draw(st.booleans()):
            module.a[-1] = module.a[0]
            module.b[:, -1] = module.b[:, 0]
    return parent, rng
