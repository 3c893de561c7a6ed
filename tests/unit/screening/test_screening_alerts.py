"""Alerts: their thresholds, and the scores where half the round is equal."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from concordat.screening import Alert, Screened
from concordat.screening.alerts import HINTS, centre, independent, measure, raised


def gram(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    inner = x @ x.T
    squares = np.diag(inner)
    return np.sqrt(squares), inner, np.maximum(squares[:, None] + squares - 2 * inner, 0)


@pytest.mark.parametrize(
    ("numbers", "hints", "alerts"),
    [
        ({}, [], []),
        ({"norm": 99.0, "relativeNorm": 9.0, "nearestCosine": 0.98, "previousCosine": 0.97}, [], []),
        ({"logNormScore": 3.6}, [], []),
        ({"logNormScore": 3.61}, [Alert.LOG_NORM], []),
        ({"logNormScore": -4.41}, [Alert.LOG_NORM], [Alert.LOG_NORM]),
        ({"centreCosine": 0.0, "centreScore": 9.0}, [], []),
        # Finding F13: below 0 alone is what every fourth honest update is under skew.
        ({"centreCosine": -0.001, "centreScore": 3.3}, [Alert.CENTRE_COSINE], []),
        ({"centreCosine": -0.001, "centreScore": 3.31}, [Alert.CENTRE_COSINE], [Alert.CENTRE_COSINE]),
        ({"meanCosine": -0.5}, [], []),
        ({"meanCosine": -0.501}, [], [Alert.MEAN_COSINE]),
        ({"spectralScore": 3.6, "spectralShare": 0.9}, [], []),
        ({"spectralScore": 3.61, "spectralShare": 0.3}, [], []),
        ({"spectralScore": 4.41, "spectralShare": 0.301}, [Alert.SPECTRAL], []),
        ({"spectralScore": 4.41, "spectralShare": 0.401}, [Alert.SPECTRAL], [Alert.SPECTRAL]),
        ({"krumScore": 2.6}, [], []),
        ({"krumScore": 2.61}, [Alert.KRUM], []),
        ({"krumScore": 99.0}, [Alert.KRUM], []),
        ({"krumScore": -9.0}, [], []),
    ],
)
def test_what_is_beyond_its_limits_is_a_hint_or_an_alert(
    numbers: Mapping[str, float], hints: list[Alert], alerts: list[Alert]
) -> None:
    assert list(raised(numbers, HINTS)) == hints
    assert list(raised(numbers)) == alerts


def test_a_cosine_below_nought_is_told_in_words() -> None:
    numbers = {"centreCosine": -0.25, "centreScore": 4.0}
    assert raised(numbers) == {Alert.CENTRE_COSINE: "cosine -0.25, at least 0, score 4, at most 3.3"}
    assert raised(numbers, HINTS) == {Alert.CENTRE_COSINE: "cosine -0.25, at least 0"}


@pytest.mark.parametrize(
    ("hints", "count"),
    [
        ([], 0),
        ([Alert.LOG_NORM, Alert.KRUM], 1),
        ([Alert.KRUM, Alert.SPECTRAL], 2),
        ([Alert.CENTRE_COSINE, Alert.SPECTRAL], 2),
        ([Alert.LOG_NORM, Alert.CENTRE_COSINE, Alert.SPECTRAL, Alert.KRUM], 3),
    ],
)
def test_hints_that_look_at_size_are_one_witness(hints: list[Alert], count: int) -> None:
    assert independent(hints) == count


@given(st.integers(8, 20), st.floats(1e-6, 1e6))
def test_equal_updates_of_equal_norm_raise_nothing(n: int, norm: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (np.eye(n) * norm, np.ones((n, 3)) * norm):
            for numbers in measure(*gram(rows), faulty=1):
                assert not raised(numbers, HINTS)
                assert all(math.isfinite(value) for value in numbers.values())


@pytest.mark.parametrize(("factor", "alert"), [(1.49, False), (1.51, True), (1 / 1.49, False), (1 / 1.51, True)])
def test_where_all_were_clipped_alike_a_factor_of_one_and_a_half_is_a_hint(factor: float, alert: bool) -> None:
    rows = np.eye(9)
    rows[0] *= factor
    assert (Alert.LOG_NORM in raised(measure(*gram(rows), faulty=1)[0], HINTS)) is alert


def test_one_large_update_among_orthogonal_ones_is_spectral_although_the_others_deviate_by_nothing() -> None:
    rows = np.eye(9)
    rows[0] *= 4
    first, *others = measure(*gram(rows), faulty=1)
    assert Alert.SPECTRAL in raised(first)
    assert first["spectralShare"] == pytest.approx(others[0]["spectralShare"])
    assert not any(raised(numbers) for numbers in others)


def test_nearer_to_the_median_than_the_usual_update_to_the_mean_is_not_spectral() -> None:
    # Along the first component five are at the same place, so their deviation is zero.
    rows = np.hstack([np.array([[0, 0, 0, 0, 0, 1, -1, 2, -2]]).T, 1.5 * np.eye(9)])
    found = measure(*gram(rows), faulty=1)
    assert found[0]["spectralShare"] > 0.3
    assert [Alert.SPECTRAL in raised(numbers, HINTS) for numbers in found] == [False] * 7 + [True] * 2


@pytest.mark.parametrize(
    ("n", "faulty", "names"),
    [
        (1, 0, set()),
        (2, 0, set()),
        (3, 0, {"centreCosine", "centreScore"}),
        (3, 1, {"centreCosine", "centreScore"}),
        (4, 2, set()),
        (7, 0, {"centreCosine", "centreScore"}),
        (
            8,
            2,
            {
                "centreCosine",
                "centreScore",
                "logNormScore",
                "meanCosine",
                "spectralScore",
                "spectralShare",
                "krumScore",
            },
        ),
        (8, 3, {"centreCosine", "centreScore", "logNormScore", "meanCosine", "spectralScore", "spectralShare"}),
        (8, 4, {"logNormScore", "meanCosine", "spectralScore", "spectralShare"}),
    ],
)
def test_a_number_is_computed_only_where_it_means_something(n: int, faulty: int, names: set[str]) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 50)) + 1
    assert all(set(numbers) == names for numbers in measure(*gram(rows), faulty=faulty))


def test_updates_that_cancel_have_no_centre() -> None:
    rows = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float64)
    assert measure(*gram(rows), faulty=0) == [{}] * 4


def test_the_krum_score_is_that_of_the_definition() -> None:
    x = np.random.default_rng(3).normal(size=(9, 5))
    f, sums = 2, []
    for i in range(9):
        others = sorted(float(np.sum((x[i] - x[j]) ** 2)) for j in range(9) if j != i)
        sums.append(sum(others[: 9 - f - 2]))
    logs = np.log(sums)
    apart = logs - np.median(logs)
    wanted = 0.6745 * apart / np.median(np.abs(apart)) / (1 + 6 / 9)
    # In a spread as wide as this one the least spread plays no part.
    assert [n["krumScore"] for n in measure(*gram(x), faulty=f)] == pytest.approx(list(wanted))


def test_the_centre_of_nobody_faulty_is_the_mean() -> None:
    _, inner, distances2 = gram(np.random.default_rng(0).normal(size=(6, 4)))
    assert centre(inner, distances2, 0) == pytest.approx(np.full(6, 1 / 6))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(1.5, 1e4))
def test_the_centre_keeps_out_a_liar_that_is_far_away(seed: int, faulty: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    rows = 1 + 0.3 * rng.normal(size=(2 * faulty + 3, 40))
    rows[:faulty] *= -size
    weights = centre(*gram(rows)[1:], faulty)
    assert weights.sum() == pytest.approx(1)
    assert not weights[:faulty].any()


def test_the_numbers_of_a_round_raise_the_alerts_of_the_round(screen_rows: Callable[..., Screened]) -> None:
    rows = np.eye(9)
    rows[0] *= 4
    first, *others = screen_rows(rows).findings
    assert first.alerts == (Alert.LOG_NORM, Alert.SPECTRAL)
    assert first.message.startswith("LogNorm alert: score 12.3085, at most ±4.4; Spectral alert: score ")
    assert not any(other.alerts for other in others)
    assert others[0].message == "nothing out of the ordinary"
