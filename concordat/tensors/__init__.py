"""Tensors by name, as numpy arrays, the safetensors files that hold them, and the differences between two of them."""

from concordat.tensors.deltas import (
    Named,
    NotFiniteError,
    check_names,
    check_schema,
    difference,
    factor_names,
    pad,
)
from concordat.tensors.files import (
    FLOATS,
    MAX_HEADER,
    FormError,
    TensorError,
    Tensors,
    map_tensors,
    read_tensors,
    save_tensors,
    shown,
    write_tensors,
)

__all__ = [
    "FLOATS",
    "MAX_HEADER",
    "FormError",
    "Named",
    "NotFiniteError",
    "TensorError",
    "Tensors",
    "check_names",
    "check_schema",
    "difference",
    "factor_names",
    "map_tensors",
    "pad",
    "read_tensors",
    "save_tensors",
    "shown",
    "write_tensors",
]
