"""Difference and form of an update, and how norms are written."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor
from concordat.api.update import Verdict
from concordat.screening import ScreeningError, check_schema, decimal, difference, factor_names

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
    with pytest.raises(ScreeningError, match=says) as raised:
        difference(candidate, PARENT, Factor.B)
    assert raised.value.reason is Reason.SCHEMA_MISMATCH


GOOD = np.full((4, 2), 0.25, np.float32)
NAN = np.where(np.eye(4, 2), np.nan, GOOD).astype(np.float32)


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        ({}, Reason.SCHEMA_MISMATCH),
        ({A: PARENT[A]}, Reason.SCHEMA_MISMATCH),
        ({A: PARENT[A], B: GOOD}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD, "x.lora_B.weight": GOOD}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD[:3]}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD.T}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD[None]}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD.astype(np.float64)}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD.astype(np.float16)}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD.astype(np.int32)}, Reason.SCHEMA_MISMATCH),
        ({B: NAN}, Reason.NOT_FINITE),
        ({B: NAN * 100}, Reason.NOT_FINITE),
        ({B: GOOD * np.float32("inf")}, Reason.NOT_FINITE),
    ],
)
def test_a_delta_against_the_contract_is_refused(delta: dict[str, NDArray[Any]], reason: Reason) -> None:
    with pytest.raises(ScreeningError) as raised:
        check_schema(delta, PARENT, Factor.B)
    assert raised.value.reason is reason


def test_a_delta_of_the_right_form_passes_whatever_its_size() -> None:
    check_schema({B: np.full((4, 2), 3e38, np.float32)}, PARENT, Factor.B)


def test_a_hostile_name_is_escaped_in_the_message() -> None:
    with pytest.raises(ScreeningError, match=r"foreign: \\ud800\\x1b\[31m") as raised:
        check_schema({"\ud800\x1b[31m" + "x" * 9999: GOOD}, PARENT, Factor.B)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (100.0, "100"),
        (1.23456, "1.2346"),
        (999_998.99996, "999999"),
        (999_999.99999, "999999"),
        (1e30, "999999"),
        (math.inf, "999999"),
        (math.nan, "999999"),
    ],
)
def test_a_norm_as_the_api_writes_it(value: float, text: str) -> None:
    assert decimal(value) == text


@given(st.floats(min_value=0))
def test_every_norm_fits_the_field_of_the_api(value: float) -> None:
    assert Verdict(reason="Verified", norm=decimal(value)).norm == decimal(value)
