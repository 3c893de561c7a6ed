"""Difference and form of an update."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.round import Factor
from concordat.tensors import FormError, NotFiniteError, TensorError, check_schema, difference, factor_names

A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT = {A: np.ones((2, 4), np.float32), B: np.zeros((4, 2), np.float32)}


def test_the_difference_is_that_of_the_trained_factor_only() -> None:
    candidate = {A: PARENT[A], B: PARENT[B] + 2}
    assert {n: t.tolist() for n, t in difference(candidate, PARENT, Factor.B).items()} == {B: [[2, 2]] * 4}
    assert factor_names(PARENT, Factor.A) == [A]


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        ({A: PARENT[A]}, f"missing: {B}"),
        ({**PARENT, "x": PARENT[A]}, "foreign: x"),
        ({**PARENT, B: PARENT[B].T}, re.escape("has shape [2, 4], the parent's has [4, 2]")),
        ({**PARENT, A: PARENT[A] * 2}, "lora_A.weight changed, but the contract trains only factor B"),
        ({**PARENT, A: PARENT[A] * np.float32("nan")}, "lora_A.weight changed"),
    ],
)
def test_a_candidate_of_another_form_has_no_difference(candidate: dict[str, Any], says: str) -> None:
    with pytest.raises(FormError, match=says):
        difference(candidate, PARENT, Factor.B)


GOOD = np.full((4, 2), 0.25, np.float32)
NAN = np.where(np.eye(4, 2), np.nan, GOOD).astype(np.float32)


@pytest.mark.parametrize(
    ("delta", "error"),
    [
        ({}, FormError),
        ({A: PARENT[A]}, FormError),
        ({A: PARENT[A], B: GOOD}, FormError),
        ({B: GOOD, "x.lora_B.weight": GOOD}, FormError),
        ({B: GOOD[:3]}, FormError),
        ({B: GOOD.T}, FormError),
        ({B: GOOD[None]}, FormError),
        ({B: GOOD.astype(np.float64)}, FormError),
        ({B: GOOD.astype(np.float16)}, FormError),
        ({B: GOOD.astype(np.int32)}, FormError),
        ({B: NAN}, NotFiniteError),
        ({B: NAN * 100}, NotFiniteError),
        ({B: GOOD * np.float32("inf")}, NotFiniteError),
    ],
)
def test_a_delta_against_the_contract_is_refused(delta: dict[str, NDArray[Any]], error: type[TensorError]) -> None:
    with pytest.raises(error):
        check_schema(delta, PARENT, Factor.B)


def test_a_delta_of_the_right_form_passes_whatever_its_size() -> None:
    check_schema({B: np.full((4, 2), 3e38, np.float32)}, PARENT, Factor.B)


def test_a_hostile_name_is_escaped_in_the_message() -> None:
    with pytest.raises(FormError, match=r"foreign: \\ud800\\x1b\[31m") as raised:
        check_schema({"\ud800\x1b[31m" + "x" * 9999: GOOD}, PARENT, Factor.B)
    assert len(str(raised.value)) < 300


def test_both_factors_are_both() -> None:
    names = [B, A, "head.weight"]
    assert factor_names(names, Factor.BOTH) == [A, B]
    check_schema(PARENT, PARENT, Factor.BOTH)
    with pytest.raises(FormError, match=f"missing: {A}"):
        check_schema({B: PARENT[B]}, PARENT, Factor.BOTH)
    with pytest.raises(FormError, match=f"foreign: {A}"):
        check_schema(PARENT, PARENT, Factor.B)
