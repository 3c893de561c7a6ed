"""Norm, clipping, difference, and the check of a submitted delta."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.api.round import Factor
from concordat.api.update import Verdict
from concordat.screening import (
    NORM_TOLERANCE,
    ScreeningError,
    check_delta,
    clip,
    decimal,
    difference,
    factor_names,
    total_norm,
)

A, B = "vit.layer.0.lora_A.weight", "vit.layer.0.lora_B.weight"
PARENT = {A: np.ones((2, 4), np.float32), B: np.zeros((4, 2), np.float32)}
_any = st.floats(width=32, allow_nan=False, allow_infinity=False)
_deltas = st.dictionaries(st.sampled_from("abcd"), hnp.arrays(np.float32, (3, 2), elements=_any), min_size=1)
_norms = st.floats(1e-6, 999_999)


@given(_deltas, _norms)
@example({"a": np.full((3, 2), 3e38, np.float32)}, 1e-6)
def test_what_is_clipped_is_within_the_norm_and_points_the_same_way(delta: dict[str, Any], norm: float) -> None:
    clipped, before, cut = clip(delta, norm)
    assert before == total_norm(delta)
    assert cut == (before > norm)
    assert total_norm(clipped) <= norm * (1 + 1e-6)
    assert all(t.dtype == np.float32 for t in clipped.values())
    for name, tensor in delta.items():
        if not cut:
            np.testing.assert_array_equal(clipped[name], tensor)
        else:
            wanted = tensor.astype(np.float64) * (norm / before)
            np.testing.assert_allclose(clipped[name], wanted, rtol=1e-6, atol=1e-44)
    if cut:
        assert total_norm(clipped) >= norm * (1 - 1e-6)


@given(_deltas, _norms)
def test_the_hub_accepts_what_a_site_clipped(delta: dict[str, Any], norm: float) -> None:
    named = {f"{name}.lora_B.weight": tensor for name, tensor in delta.items()}
    clipped, _, _ = clip(named, norm)
    assert check_delta(clipped, named, Factor.B, norm) == total_norm(clipped)


def test_clipping_to_nothing_leaves_nothing() -> None:
    clipped, before, cut = clip({B: np.ones((4, 2), np.float32)}, 0)
    assert (before, cut) == (math.sqrt(8), True)
    assert not clipped[B].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_cannot_be_clipped(value: float) -> None:
    with pytest.raises(ScreeningError) as raised:
        clip({B: np.array([1, value], np.float32)}, 1)
    assert raised.value.reason is Reason.NOT_FINITE


@given(_deltas)
def test_the_norm_is_that_of_exact_arithmetic(delta: dict[str, Any]) -> None:
    exact = math.sqrt(math.fsum(float(v) ** 2 for t in delta.values() for v in t.flat))
    assert total_norm(delta) == pytest.approx(exact, rel=1e-12)


def test_the_norm_of_many_small_values_does_not_drift() -> None:
    # A float32 sum of ten million squares would be wrong in the third digit.
    delta = {B: np.full(10_000_000, 1e-3, np.float32)}
    assert total_norm(delta) == pytest.approx(float(np.float32(1e-3)) * math.sqrt(1e7), rel=1e-12)


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
        ({B: GOOD * np.float32(2**0.5 * (1 + 1.1 * NORM_TOLERANCE))}, Reason.NORM_EXCEEDED),
        ({B: np.full((4, 2), 3e38, np.float32)}, Reason.NORM_EXCEEDED),
    ],
)
def test_a_delta_against_the_contract_is_refused(delta: dict[str, NDArray[Any]], reason: Reason) -> None:
    with pytest.raises(ScreeningError) as raised:
        check_delta(delta, PARENT, Factor.B, 1.0)
    assert raised.value.reason is reason
    assert (raised.value.norm is None) == (reason is not Reason.NORM_EXCEEDED)


def test_the_norm_may_exceed_the_contract_by_rounding_only() -> None:
    slack = np.float32(2**0.5 * (1 + 0.9 * NORM_TOLERANCE))
    assert check_delta({B: GOOD * slack}, PARENT, Factor.B, 1.0) == pytest.approx(1 + 0.9 * NORM_TOLERANCE, rel=1e-6)


def test_a_hostile_name_is_escaped_in_the_message() -> None:
    with pytest.raises(ScreeningError, match=r"foreign: \\ud800\\x1b\[31m") as raised:
        check_delta({"\ud800\x1b[31m" + "x" * 9999: GOOD}, PARENT, Factor.B, 1.0)
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
