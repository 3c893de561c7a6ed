"""A site's labelled images, as its data volume holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from concordat.tensors import write_tensors
from concordat_learning.errors import DataError
from concordat_learning.package import BasePackage
from concordat_learning.tensors import read_field

TRAIN = "train.safetensors"
VALIDATION = "validation.safetensors"


@dataclass(frozen=True)
class Examples:
    """Images float32 [n, channels, height, width] in 0..1 and their labels int64 [n]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Examples:
        """Return the examples at these positions, in this order."""
        return Examples(self.images[indices], self.labels[indices])

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return write_tensors({"images": self.images, "labels": self.labels})


def pool(parts: list[Examples]) -> Examples:
    """All examples of the parts, in their order."""
    return Examples(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def read_examples(path: Path, package: BasePackage) -> Examples:
    """Read and check one data file against what the base package takes. Raises DataError naming file and field."""
    images = read_field(path, "images", "F32")
    labels = read_field(path, "labels", "I64")
    if images.ndim != 4 or images.shape[1:] != package.input_shape:
        wanted = ["n", *package.input_shape]
        raise DataError(f"{path}: images has shape {list(images.shape)}; the base package takes {wanted}")
    if labels.shape != images.shape[:1]:
        raise DataError(f"{path}: labels has shape {list(labels.shape)}; it must be [{len(images)}], one an image")
    if not len(images):
        raise DataError(f"{path}: images is empty; at least one example is needed")
    if not bool(np.isfinite(images).all()):
        raise DataError(f"{path}: images has values that are not finite")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise DataError(f"{path}: images has values in {low:g}..{high:g}; scale them to 0..1")
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest >= package.classes:
        raise DataError(f"{path}: labels has values in {smallest}..{largest}; allowed is 0..{package.classes - 1}")
    return Examples(images, labels)
