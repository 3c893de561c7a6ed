"""Adapter folders as peft itself writes and loads them, and the weight changes that it makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from concordat.tensors import FLOATS, read_tensors

if TYPE_CHECKING:
    import torch

Dense = NDArray[np.float64]
Factors = dict[str, NDArray[np.float32]]


def network(width: int = 9) -> torch.nn.Module:
    """Two linear layers to adapt and one that is not."""
    import torch

    torch.manual_seed(0)
    linear = torch.nn.Linear
    inner = torch.nn.ModuleDict({"first": linear(width, 6), "last": linear(6, 5)})
    return torch.nn.ModuleDict({"first": linear(7, width), "inner": inner, "head": linear(5, 3)})


def save(
    path: Path,
    seed: int = 0,
    dtype: str = "float32",
    factors: Mapping[str, NDArray[Any]] | None = None,
    width: int = 9,
    base: str = "tiny",
    **settings: Any,
) -> Path:
    """Write an adapter of random factors, or of these, by peft's save_pretrained."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    kind: torch.dtype = getattr(torch, dtype)
    lora = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["first", "last"]} | settings)
    model: Any = get_peft_model(network(width).to(kind), lora, autocast_adapter_dtype=False)
    rng = np.random.default_rng(seed)
    state = {name: rng.normal(size=t.shape) for name, t in get_peft_model_state_dict(model).items()}
    state |= dict(factors or {})
    set_peft_model_state_dict(model, {name: torch.from_numpy(np.asarray(t)).to(kind) for name, t in state.items()})
    model.save_pretrained(path)
    # This network has no name that peft could write.
    edit(path, base_model_name_or_path=base)
    return path


def config(path: Path) -> dict[str, Any]:
    """The settings of a folder."""
    settings: dict[str, Any] = json.loads((path / "adapter_config.json").read_text())
    return settings


def edit(path: Path, **settings: Any) -> None:
    """Change settings of a folder, and nothing else in it."""
    (path / "adapter_config.json").write_text(json.dumps(config(path) | settings))


def load(path: Path) -> Any:
    """The network with the adapter of a folder, as peft loads it."""
    from peft import PeftModel

    return PeftModel.from_pretrained(network(), path)


def factors(path: Path) -> Factors:
    """The tensors of a folder, float32."""
    return read_tensors(path / "adapter_model.safetensors", dtypes=FLOATS)


def change(path: Path) -> Dense:
    """What peft adds to the weights of all layers, flat."""
    layers = [m for _, m in sorted(load(path).named_modules()) if hasattr(m, "get_delta_weight")]
    assert len(layers) == 3
    return np.concatenate([layer.get_delta_weight("default").detach().double().numpy().ravel() for layer in layers])
