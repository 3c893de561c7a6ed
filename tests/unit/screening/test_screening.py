"""The form of an update as a verdict, and how norms are written."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor
from concordat.api.update import Verdict
from concordat.screening import ScreeningError, decimal
from concordat.screening.update import check_form

A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT = {A: np.ones((2, 4), np.float32), B: np.zeros((4, 2), np.float32)}
GOOD = np.full((4, 2), 0.25, np.float32)


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        ({}, Reason.SCHEMA_MISMATCH),
        ({A: PARENT[A], B: GOOD}, Reason.SCHEMA_MISMATCH),
        ({B: GOOD[:3]}, Reason.SCHEMA_MISMATCH),
        ({B: np.full((4, 3), 0.25, np.float32)}, Reason.SCHEMA_MISMATCH),
        ({B: np.where(np.eye(4, 2), np.nan, GOOD).astype(np.float32)}, Reason.NOT_FINITE),
        ({B: GOOD * np.float32("inf")}, Reason.NOT_FINITE),
    ],
)
def test_an_update_of_another_form_is_rejected(delta: dict[str, NDArray[Any]], reason: Reason) -> None:
    with pytest.raises(ScreeningError) as raised:
        check_form(delta, PARENT, Factor.B)
    assert raised.value.reason is reason


def test_an_update_of_lower_rank_is_padded() -> None:
    assert check_form({B: GOOD[:, :1]}, PARENT, Factor.B)[B].tolist() == [[0.25, 0]] * 4


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
