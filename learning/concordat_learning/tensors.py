"""Reading and writing of safetensors files with numpy: no pickle, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from concordat_learning.errors import DataError, InputError

Tensors = dict[str, NDArray[np.float32]]
Factor = Literal["A", "B", "Both"]
"""LoRA factor that is trained, in the contract's words."""


def is_trained(name: str, factor: Factor) -> bool:
    """Whether the tensor of this name, in an adapter file or in the network, belongs to the factor."""
    return any(f".lora_{part}." in name for part in ("A", "B") if factor in (part, "Both"))


def read_adapter(path: Path) -> Tensors:
    """All tensors of an adapter file, float32. Raises InputError."""
    try:
        with safe_open(path, framework="np") as file:
            names = sorted(file.keys())
            for name in names:
                if (dtype := file.get_slice(name).get_dtype()) != "F32":
                    raise InputError(f"{path}: {name} has dtype {dtype}; adapters are float32 (F32)")
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as safetensors: {error}; the agent, or in the hub the aggregator, writes it"
        ) from None


def field_names(path: Path) -> list[str]:
    """Names of the tensors of a data file, sorted. Raises DataError."""
    try:
        with safe_open(path, framework="np") as file:
            return sorted(file.keys())
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None


def read_field(path: Path, field: str, dtype: str) -> NDArray[Any]:
    """One tensor of a data file; `dtype` in safetensors' words (F32, I64). Raises DataError."""
    try:
        with safe_open(path, framework="np") as file:
            if field not in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                raise DataError(
                    f"{path}: {field} is missing; the file has {', '.join(sorted(file.keys())) or 'nothing'}"
                )
            found = file.get_slice(field).get_dtype()
            if found != dtype:
                raise DataError(f"{path}: {field} has dtype {found}; it must be {dtype}")
            tensor: NDArray[Any] = file.get_tensor(field)
            return tensor
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing; put the site's data on the volume of its dataClaim, "
            "the hub's on that of screening.canary.claim"
        ) from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read as safetensors: {error}") from None


def write(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """safetensors bytes; equal tensors give equal bytes, whatever their order."""
    return bytes(save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}))
