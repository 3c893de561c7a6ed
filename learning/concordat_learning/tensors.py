"""The files of a Job: adapters, and the tensors of a site's data. No pickle, no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from concordat.api.round import Factor
from concordat.tensors import TensorError, Tensors, read_tensors
from concordat_learning.errors import DataError, InputError


def is_trained(name: str, factor: Factor) -> bool:
    """Return whether the tensor of this name, in an adapter file or in the network, belongs to the factor."""
    return any(f".lora_{part.value}." in name for part in (Factor.A, Factor.B) if factor in (part, Factor.BOTH))


def read_adapter(path: Path) -> Tensors:
    """Return all tensors of an adapter file, float32. Raises InputError."""
    try:
        return read_tensors(path)
    except (OSError, TensorError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {why}; the agent, or in the hub the aggregator, writes it") from None


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
