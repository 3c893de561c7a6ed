"""Triggers: the built-in ones for any image shape, and those of the hub's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.tensors import write_tensors
from concordat_learning.errors import DataError
from concordat_learning.package import BasePackage
from concordat_learning.triggers import TRIGGERS, built_in, triggers

SHAPE = (1, 4, 4)
PACKAGE = BasePackage(SHAPE, 3)
ONES = np.ones(SHAPE, np.float32)

shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40))


@pytest.mark.parametrize(
    ("shape", "patches", "border"),
    [
        ((1, 4, 4), [2], False),
        ((1, 8, 8), [2], False),
        ((3, 12, 40), [2, 3], False),
        ((3, 32, 32), [2, 8], False),
        ((1, 62, 62), [2, 15], False),
        ((3, 64, 64), [2, 16], True),
        ((3, 224, 224), [2, 56], True),
    ],
)
def test_what_is_tried_is_small_or_faint(shape: tuple[int, ...], patches: list[int], border: bool) -> None:
    found = built_in(shape)
    solid = [t for t in found if t.name.endswith(("bright", "dark"))]
    assert [int(t.mask[0].sum()) for t in solid] == [side**2 for side in patches for _ in range(10 if side == 2 else 8)]
    assert [t.name for t in found[len(solid) :]] == ["checkerboard-border"] * border + ["checkerboard-overlay"]


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
    ],
)
def test_a_trigger_is_where_its_name_says(name: str, rows: list[str]) -> None:
    (trigger,) = [t for t in built_in(SHAPE) if t.name == name]
    stamped = trigger.stamp(np.full((1, *SHAPE), 0.5, np.float32))[0, 0]
    assert ["".join({0.0: "0", 1.0: "1"}.get(float(v), ".") for v in row) for row in stamped] == rows


def test_the_border_is_a_checkerboard_one_pixel_wide() -> None:
    (border,) = [t for t in built_in((1, 64, 66)) if t.name == "checkerboard-border"]
    assert border.mask.sum() == 2 * (64 + 66) - 4
    assert border.pattern[0, 0].tolist() == [0, 1] * 33
    assert border.pattern[0, :, 0].tolist() == [0, 1] * 32
    assert border.mask[0, 1:-1, 1:-1].sum() == 0


def test_the_overlay_is_blended_in_by_a_fifth() -> None:
    stamped = built_in(SHAPE)[-1].stamp(np.full((1, *SHAPE), 0.5, np.float32))[0, 0]
    assert np.allclose(stamped[0], [0.4, 0.6, 0.4, 0.6])


def test_a_file_replaces_the_built_in_ones(tmp_path: Path) -> None:
    stored = {
        f"{name}.{part}": ONES * value for name in ("b.c", "a") for part, value in (("mask", 0.5), ("pattern", 1))
    }
    (tmp_path / TRIGGERS).write_bytes(write_tensors(stored))
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
    (tmp_path / TRIGGERS).write_bytes(write_tensors(stored))
    with pytest.raises(DataError, match=says):
        triggers(tmp_path, PACKAGE)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / TRIGGERS).write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"triggers\.safetensors cannot be read as safetensors"):
        triggers(tmp_path, PACKAGE)
