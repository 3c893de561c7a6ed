"""Tensors by name, as numpy arrays, and the safetensors files that hold them."""

from concordat.tensors.files import (
    FLOATS,
    MAX_HEADER,
    DtypeError,
    TensorError,
    Tensors,
    map_tensors,
    read_tensors,
    shown,
    write_tensors,
)

__all__ = [
    "FLOATS",
    "MAX_HEADER",
    "DtypeError",
    "TensorError",
    "Tensors",
    "map_tensors",
    "read_tensors",
    "shown",
    "write_tensors",
]
