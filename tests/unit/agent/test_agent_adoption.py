"""Adoption of a release: each rule has a row that it refuses and one that it allows, on either side of its limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Reason
from concordat_agent.policy import AdoptionPolicy, percent
from concordat_agent.releases.adoption import Comparison, decide_adoption


@pytest.mark.parametrize(
    ("rules", "quality", "in_use", "reason"),
    [
        ({}, 980_000, 980_000, Reason.ADOPTED),
        ({}, 960_000, 980_000, Reason.ADOPTED),
        ({}, 959_999, 980_000, Reason.REGRESSION),
        ({"maxRegressionPpm": 0}, 979_999, 980_000, Reason.REGRESSION),
        ({"minQualityPpm": 990_000}, 989_999, 900_000, Reason.POLICY_REJECTED),
        ({"minQualityPpm": 990_000}, 990_000, 900_000, Reason.ADOPTED),
        ({"mode": "Never"}, 1_000_000, 0, Reason.POLICY_REJECTED),
        # The first rule that refuses decides.
        ({"mode": "Never"}, 0, 1_000_000, Reason.POLICY_REJECTED),
        ({"minQualityPpm": 990_000}, 0, 1_000_000, Reason.REGRESSION),
    ],
)
def test_adoption(rules: dict[str, Any], quality: int, in_use: int, reason: Reason) -> None:
    answer = decide_adoption(AdoptionPolicy.model_validate(rules), Comparison(quality, in_use, "the parent"))
    assert (answer.passed, answer.reason) == (reason is Reason.ADOPTED, reason)
    assert percent(quality) in answer.message


def test_a_regression_is_told_with_its_size_and_its_limit() -> None:
    answer = decide_adoption(AdoptionPolicy(), Comparison(950_000, 980_000, "digits-1"))
    assert answer.message.endswith("the regression of 30000 ppm exceeds adoption.maxRegressionPpm 20000.")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_nothing_is_adopted_against_a_limit(quality: int, in_use: int, least: int, most: int) -> None:
    policy = AdoptionPolicy(min_quality_ppm=least, max_regression_ppm=most)
    answer = decide_adoption(policy, Comparison(quality, in_use, "the parent"))
    assert answer.passed is (quality >= least and in_use - quality <= most)
