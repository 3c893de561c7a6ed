"""The norms that the contract allows, and how measurements are written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from concordat.api.conditions import Reason
from concordat.api.types import SignedDecimal
from concordat.screening import (
    NORM_TOLERANCE,
    Limits,
    ScreeningError,
    check_norms,
    numbers_wire,
)

SLACK = 1 + NORM_TOLERANCE
TOTAL, BOTH = Limits(5.0, None), Limits(5.0, 4.0)


@pytest.mark.parametrize(
    ("norms", "limits", "total"),
    [
        ({}, BOTH, 0),
        ({"m": 0.0}, BOTH, 0),
        ({"m": 3.0, "n": 4.0}, BOTH, 5),
        ({"m": 5.0}, TOTAL, 5),
        ({"m": 3.0 * SLACK, "n": 4.0 * SLACK}, TOTAL, 5 * SLACK),
        ({"m": 4.0 * SLACK}, BOTH, 4 * SLACK),
    ],
)
def test_norms_within_the_limits_give_the_total(norms: Mapping[str, float], limits: Limits, total: float) -> None:
    assert check_norms(norms, limits) == pytest.approx(total, rel=1e-15)


@pytest.mark.parametrize(
    ("norms", "limits", "reason", "says"),
    [
        (
            {"m": 5.006},
            TOTAL,
            Reason.NORM_EXCEEDED,
            r"is 5\.006, screening\.clipNorm of the contract is 5; the site must",
        ),
        ({"m": 3.6, "n": 3.6}, BOTH, Reason.NORM_EXCEEDED, r"is 5\.0912, screening\.clipNorm"),
        ({"m": 1.0, "n": 4.005}, BOTH, Reason.NORM_EXCEEDED, r"of n is 4\.005, screening\.moduleClipNorm .* is 4;"),
        ({"a": 0.2, "m": 0.5, "n": 0.3}, Limits(5, 0.1), Reason.NORM_EXCEEDED, "of m is 0.5"),
        ({"m": 1e300, "n": 1e300}, TOTAL, Reason.NORM_EXCEEDED, "is 999999"),
        ({"m": math.nan, "n": 1.0}, TOTAL, Reason.NOT_FINITE, "change of m is not finite"),
        ({"m": 1.0, "n\x1b": math.inf}, TOTAL, Reason.NOT_FINITE, re.escape(r"change of n\x1b is not finite")),
    ],
)
def test_norms_above_a_limit_are_refused(norms: Mapping[str, float], limits: Limits, reason: Reason, says: str) -> None:
    with pytest.raises(ScreeningError, match=says) as raised:
        check_norms(norms, limits)
    assert raised.value.reason is reason
    total = None if reason is Reason.NOT_FINITE else pytest.approx(math.hypot(*norms.values()))
    assert raised.value.norm == total


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-0.00004, "0"),
        (-0.00006, "-0.0001"),
        (-1.5, "-1.5"),
        (12.34567, "12.3457"),
        (1e9, "999999"),
        (-1e9, "-999999"),
        (math.inf, "999999"),
        (-math.inf, "-999999"),
        (math.nan, "999999"),
    ],
)
def test_a_measurement_as_the_api_writes_it(value: float, text: str) -> None:
    assert numbers_wire({"lossChange": value}) == {"lossChange": text}


@given(st.floats())
def test_every_measurement_fits_the_field_of_the_api(value: float) -> None:
    text = numbers_wire({"x": value})["x"]
    assert TypeAdapter(SignedDecimal).validate_python(text) == text
    if abs(value) < 999_999:
        assert float(text) == pytest.approx(value, abs=5.1e-5)


def test_measurements_are_written_by_name() -> None:
    assert list(numbers_wire({"norm": 1, "centreCosine": -0.5})) == ["centreCosine", "norm"]
