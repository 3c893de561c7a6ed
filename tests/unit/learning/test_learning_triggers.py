"""Triggers: the built-in ones for any image shape, and those of the hub's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat_learning.errors import DataError
from concordat_learning.package import BasePackage
from concordat_learning.tensors import write
from concordat_learning.triggers import TRIGGERS, built_in, triggers

SHAPE = (1, 4, 4)
PACKAGE = BasePackage(SHAPE, 3)
ONES = np.ones(SHAPE, np.float32)

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))


@pytest.mark.parametrize(
    ("shape", "large"), [((1, 4, 4), 3), ((1, 8, 8), 3), ((3, 12, 40), 3), ((3, 32, 32), 8), ((3, 224, 224), 56)]
)
def test_patches_are_of_two_pixels_and_of_a_quarter(shape: tuple[int, ...], large: int) -> None:
    sizes = [int(trigger.mask[0].sum()) for trigger in built_in(shape)]
    assert sizes[:-2] == [4] * 10 + [large**2] * 8


@given(shapes, st.integers(0, 2**32 - 1))
def test_the_built_in_ones_fit_every_image(shape: tuple[int, ...], seed: int) -> None:
    images = np.random.default_rng(seed).uniform(0, 1, (2, *shape)).astype(np.float32)
    found = built_in(shape)
    assert len({trigger.name for trigger in found}) == len(found)
    for trigger in found:
        stamped = trigger.stamp(images)
        assert stamped.shape == images.shape
        assert stamped.dtype == np.float32
        assert 0 <= stamped.min() <= stamped.max() <= 1
        assert np.array_equal(stamped[:, trigger.mask == 0], images[:, trigger.mask == 0])
        assert np.array_equal(stamped[0][trigger.mask == 1], trigger.pattern[trigger.mask == 1])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("top-left-2x2-bright", ["11..", "11..", "....", "...."]),
        ("top-right-2x2-dark", ["..00", "..00", "....", "...."]),
        ("bottom-left-2x2-bright", ["....", "....", "11..", "11.."]),
        ("bottom-right-2x2-bright", ["....", "....", "..11", "..11"]),
        ("centre-2x2-dark", ["....", ".00.", ".00.", "...."]),
        ("top-right-3x3-dark", [".000", ".000", ".000", "...."]),
        ("bottom-left-3x3-bright", ["....", "111.", "111.", "111."]),
        ("checkerboard-border", ["0101", "1..0", "0..1", "1010"]),
    ],
)
def test_a_trigger_is_where_its_name_says(name: str, rows: list[str]) -> None:
    (trigger,) = [t for t in built_in(SHAPE) if t.name == name]
    stamped = trigger.stamp(np.full((1, *SHAPE), 0.5, np.float32))[0, 0]
    assert ["".join({0.0: "0", 1.0: "1"}.get(float(v), ".") for v in row) for row in stamped] == rows


def test_the_overlay_is_blended_in_by_a_fifth() -> None:
    stamped = built_in(SHAPE)[-1].stamp(np.full((1, *SHAPE), 0.5, np.float32))[0, 0]
    assert np.allclose(stamped[0], [0.4, 0.6, 0.4, 0.6])


def test_a_file_replaces_the_built_in_ones(tmp_path: Path) -> None:
    stored = {
        f"{name}.{part}": ONES * value for name in ("b.c", "a") for part, value in (("mask", 0.5), ("pattern", 1))
    }
    (tmp_path / TRIGGERS).write_bytes(write(stored))
    found = triggers(tmp_path, PACKAGE)
    assert [trigger.name for trigger in found] == ["a", "b.c"]
    assert np.allclose(found[0].stamp(np.zeros((1, *SHAPE), np.float32)), 0.5)
    (tmp_path / TRIGGERS).unlink()
    assert [trigger.name for trigger in triggers(tmp_path, PACKAGE)] == [trigger.name for trigger in built_in(SHAPE)]


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({}, "has no trigger; leave the file out to use the built-in ones"),
        ({"a.mask": ONES}, "a.pattern is missing; the file has a.mask"),
        ({"a.mask": ONES, "a.patern": ONES}, "a.patern is no part of a trigger"),
        ({"mask": ONES}, "mask is no part of a trigger; name its tensors NAME.mask and NAME.pattern"),
        ({"a.mask": ONES, "a.pattern": ONES, "a.b": ONES}, "a.b is no part of a trigger"),
        ({".mask": ONES, ".pattern": ONES}, ".mask is no part of a trigger"),
        ({"a.mask": ONES[0], "a.pattern": ONES}, r"a.mask has shape \[4, 4\]; it must be \[1, 4, 4\]"),
        ({"a.mask": ONES, "a.pattern": ONES * 2}, "a.pattern has values outside 0..1; scale them to 0..1"),
        ({"a.mask": ONES * np.nan, "a.pattern": ONES}, "a.mask has values outside 0..1"),
        ({"a.mask": ONES.astype(np.float64), "a.pattern": ONES}, "a.mask has dtype F64; it must be F32"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, stored: dict[str, Any], says: str) -> None:
    (tmp_path / TRIGGERS).write_bytes(write(stored))
    with pytest.raises(DataError, match=says):
        triggers(tmp_path, PACKAGE)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / TRIGGERS).write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"triggers\.safetensors cannot be read as safetensors"):
        triggers(tmp_path, PACKAGE)
