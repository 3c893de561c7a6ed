"""The updates that are measured: safetensors files of float32, made once and memory-mapped by every process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from concordat.tensors import map_tensors

Update = dict[str, NDArray[Any]]
TENSORS, ROWS = 80, 250


def faulty(n: int) -> int:
    """f of n updates: a fifth."""
    return n // 5


def write(folder: Path, count: int, size: int) -> None:
    """Files 000.safetensors … of `size` values each in 80 tensors; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (ROWS, size // (TENSORS * ROWS))
    each = 4 * shape[0] * shape[1]
    header = json.dumps(
        {
            f"layer{i:02}.lora_B.weight": {"dtype": "F32", "shape": shape, "data_offsets": [i * each, (i + 1) * each]}
            for i in range(TENSORS)
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    common = np.random.default_rng(count).standard_normal(each * TENSORS // 4, dtype=np.float32)
    for number in range(count):
        path = folder / f"{number:03}.safetensors"
        if not path.exists():
            values = common + np.random.default_rng(number).standard_normal(common.size, dtype=np.float32)
            with path.open("wb") as file:
                file.write(len(header).to_bytes(8, "little") + header)
                (values * np.float32(0.01)).tofile(file)


def read(folder: Path, count: int) -> list[Update]:
    """`count` updates over the mapped files; where there are fewer files, they are used again."""
    mapped = [map_tensors(path) for path in sorted(folder.glob("*.safetensors"))]
    return [mapped[number % len(mapped)] for number in range(count)]


def touch(updates: list[Update]) -> float:
    """Read every value, so that all pages are mapped; returns their sum."""
    return float(sum(float(tensor.sum()) for update in updates for tensor in update.values()))
