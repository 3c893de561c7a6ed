"""Known triggers: small changes of an image that a backdoored model answers with a class of the attacker's choice.

A patch is stamped or blended in as x·(1 − mask) + pattern·mask (T. Gu et al., BadNets, 2017; X. Chen et al., 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from concordat_learning.errors import DataError
from concordat_learning.package import BasePackage
from concordat_learning.tensors import field_names, read_field

TRIGGERS = "triggers.safetensors"
_SMALL = 2
_PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "centre")
_OVERLAY = np.float32(0.2)
_MOST_HIDDEN = 1 / 16
_PARTS = ("mask", "pattern")

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Trigger:
    """What is laid over an image: mask and pattern, float32 [channels, height, width] in 0..1."""

    name: str
    mask: Image
    pattern: Image

    def stamp(self, images: Image) -> Image:
        """Return the images [n, channels, height, width] with the trigger."""
        return images * (1 - self.mask) + self.pattern * self.mask


def triggers(data: Path, package: BasePackage) -> list[Trigger]:
    """Those of the file triggers.safetensors in the folder `data`, by name; without the file the built-in ones."""
    path = data / TRIGGERS
    return read_triggers(path, package) if path.exists() else built_in(package.input_shape)


def read_triggers(path: Path, package: BasePackage) -> list[Trigger]:
    """Read NAME.mask and NAME.pattern of every trigger. Raises DataError naming file and field."""
    names = set()
    for field in field_names(path):
        name, _, part = field.rpartition(".")
        if not name or part not in _PARTS:
            raise DataError(f"{path}: {field} is no part of a trigger; name its tensors NAME.mask and NAME.pattern")
        names.add(name)
    found = [Trigger(name, *(_read(path, f"{name}.{part}", package) for part in _PARTS)) for name in sorted(names)]
    if not found:
        raise DataError(f"{path} has no trigger; leave the file out to use the built-in ones")
    return found


def built_in(shape: tuple[int, ...]) -> list[Trigger]:
    """For images of this shape, always the same ones: small or faint, so that they do not hide what is in the image.

    Bright and dark square patches: of 2×2 pixels in the corners and the centre, and of a quarter of the shorter side,
    where that is more, in the corners. A checkerboard border one pixel wide, where that is at most a sixteenth of the
    image. And a checkerboard blended into the whole image by a fifth.
    """
    _, height, width = shape
    border, overlay = _checkerboards(shape)
    large = min(height, width) // 4
    return [
        *_patches(shape, _SMALL, _PLACES),
        *(_patches(shape, large, _PLACES[:-1]) if large > _SMALL else ()),
        *([border] if border.mask.mean() <= _MOST_HIDDEN else ()),
        overlay,
    ]


def _patches(shape: tuple[int, ...], side: int, places: tuple[str, ...]) -> Iterator[Trigger]:
    height, width = shape[1:]
    for place in places:
        top, left = (height - side) // 2, (width - side) // 2
        if "-" in place:
            top = 0 if place.startswith("top") else height - side
            left = 0 if place.endswith("left") else width - side
        mask = np.zeros(shape, np.float32)
        mask[:, max(top, 0) : top + side, max(left, 0) : left + side] = 1
        for shade, value in (("bright", 1), ("dark", 0)):
            yield Trigger(f"{place}-{side}x{side}-{shade}", mask, np.full(shape, value, np.float32))


def _checkerboards(shape: tuple[int, ...]) -> tuple[Trigger, Trigger]:
    """Border and overlay."""
    board = np.broadcast_to(np.indices(shape[1:]).sum(0) % 2, shape).astype(np.float32)
    border = np.ones(shape, np.float32)
    border[:, 1:-1, 1:-1] = 0
    return (
        Trigger("checkerboard-border", border, board),
        Trigger("checkerboard-overlay", np.full(shape, _OVERLAY), board),
    )


def _read(path: Path, field: str, package: BasePackage) -> Image:
    image: Image = read_field(path, field, "F32")
    if image.shape != package.input_shape:
        raise DataError(f"{path}: {field} has shape {list(image.shape)}; it must be {list(package.input_shape)}")
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise DataError(f"{path}: {field} has values outside 0..1; scale them to 0..1")
    return image
