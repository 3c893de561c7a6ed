"""Strict reading and deterministic writing of safetensors. Nothing here can execute what it reads: no pickle.

Format: 8 bytes little-endian header length, a JSON header, then the data; the offsets of the tensors must tile the
data exactly (safetensors format description).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Tensors = dict[str, NDArray[np.float32]]

MAX_HEADER = 8 << 20
MAX_RANK = 8
FLOAT32 = frozenset({"F32"})
FLOATS = frozenset({"F32", "F16", "BF16"})
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype(ml_dtypes.bfloat16)}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"


class TensorError(ValueError):
    """The bytes are not an acceptable safetensors file."""


class FormError(TensorError):
    """The tensors are not those that were expected: other names, shapes or dtypes."""


def read_tensors(source: bytes | Path, limit: int = 1 << 30, dtypes: Collection[str] = FLOAT32) -> Tensors:
    """Tensors by name, as float32 copies, from a file of at most `limit` bytes.

    `dtypes` is FLOAT32, or FLOATS to widen float16 and bfloat16 as well, which is exact. Raises TensorError with what
    is wrong, FormError for another dtype. Sizes are checked against the file before anything is allocated.
    """
    data = source if isinstance(source, bytes) else _read(source, limit)
    if len(data) > limit:
        raise TensorError(f"more than {limit} bytes; at most {limit} are accepted")
    start = _data_start(data, len(data))
    body = memoryview(data)[start:]
    return {
        name: np.frombuffer(body[begin:end], _DTYPES[dtype]).astype(np.float32).reshape(shape)
        for name, dtype, shape, begin, end in _layout(data[8:start], len(body), dtypes)
    }


def map_tensors(path: Path, dtypes: Collection[str] = FLOAT32) -> dict[str, NDArray[Any]]:
    """Tensors by name, read-only and left on the disk until they are looked at; bfloat16 as ml_dtypes.bfloat16.

    The file must not become shorter while they are in use, and stays open. Raises TensorError as read_tensors does,
    before anything is mapped.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(9)
        start = _data_start(begin, size)
        layout = _layout((begin + file.read(start - len(begin)))[8:], size - start, dtypes)
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return {
        name: np.frombuffer(mapped, _DTYPES[dtype], math.prod(shape), start + begin).reshape(shape)
        for name, dtype, shape, begin, _ in layout
    }


def write_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """safetensors bytes; equal tensors give equal bytes, whatever their order."""
    return bytes(save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}))


def save_tensors(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write float32 tensors to a safetensors file, without a copy of them in memory as `write_tensors` makes."""
    header, end = {}, 0
    for name in sorted(tensors):
        begin, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": tensors[name].shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name], dtype="<f4").data)


def shown(text: str, most: int = 100) -> str:
    """Text that others made, fit for a log or a status: printable ASCII, the rest escaped; cut to `most` characters."""
    escaped = text[:most].encode("ascii", "backslashreplace").decode("ascii")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped)[:most]


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


def _data_start(begin: bytes, size: int) -> int:
    """Where the data begins in a file of `size` bytes, from its first nine bytes or more."""
    length = int.from_bytes(begin[:8], "little")
    if size < 8 or length > size - 8 or begin[8:9] != b"{":
        if begin.startswith((_ZIP_MAGIC, _PICKLE_MAGIC)):
            raise TensorError("a pickled or zipped file (torch.save?); only safetensors is accepted")
        raise TensorError(f"not safetensors: {size} bytes do not hold the header they announce; truncated?")
    if length > MAX_HEADER:
        raise TensorError(f"the header has {length} bytes; at most {MAX_HEADER} are accepted")
    return 8 + length


def _layout(text: bytes, size: int, dtypes: Collection[str]) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """(name, dtype, shape, begin, end) of each tensor in `size` bytes of data, from the text of the header."""
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise TensorError(f"the header is not JSON: {shown(str(error))}") from error
    if not isinstance(header, dict):
        raise TensorError("the header is not a JSON object")
    out = []
    for name, entry in header.items():
        if name == "__metadata__":
            _check_metadata(entry)
            continue
        dtype, shape, begin, end = _entry(name, entry, dtypes)
        if end > size:
            raise TensorError(
                f"{shown(name)} ends at byte {end} of the data, of which there are {size}: truncated or lying"
            )
        out.append((name, dtype, shape, begin, end))
    _check_tiling([(begin, end) for *_, begin, end in out], size)
    return out


def _entry(name: str, entry: Any, dtypes: Collection[str]) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise TensorError(f"{shown(name)}: the header must have dtype, shape and data_offsets, and nothing else")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise FormError(f"{shown(name)}: dtype is {shown(str(dtype))}, expected {' or '.join(sorted(dtypes))}")
    shape, offsets = _naturals(entry["shape"]), _naturals(entry["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2 or 0 in shape:
        raise TensorError(
            f"{shown(name)}: shape or data_offsets is not a short list of natural numbers, or it is empty"
        )
    begin, end = offsets
    if end - begin != _DTYPES[dtype].itemsize * math.prod(shape):
        raise TensorError(f"{shown(name)}: {end - begin} bytes do not hold the shape {list(shape)} of {dtype}")
    return dtype, shape, begin, end


def _check_tiling(spans: list[tuple[int, int]], size: int) -> None:
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise TensorError(f"the data has a gap or an overlap at byte {min(begin, position)}")
        position = end
    if position != size:
        raise TensorError(f"{size} bytes of data, the header describes {position}: padded or lying")


def _check_metadata(entry: Any) -> None:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise TensorError("__metadata__ must map strings to strings")


def _naturals(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_RANK:
        return None
    return tuple(value) if all(type(v) is int and 0 <= v < 2**40 for v in value) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name occurs twice")
    return out
