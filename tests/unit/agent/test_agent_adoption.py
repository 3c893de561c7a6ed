"""Adoption of a release: each rule has a row that it refuses and one that it allows, on either side of its limit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Reason
from concordat_agent.policy import percent
from concordat_agent.releases.adoption import Comparison, decide_adoption, objection
from tests.support.contracts import IMAGE
from tests.support.policies import policy

NEVER = {"mode": "Never"}


@pytest.mark.parametrize(
    ("rules", "quality", "in_use", "reason"),
    [
        ({}, 980_000, 980_000, Reason.ADOPTED),
        ({}, 960_000, 980_000, Reason.ADOPTED),
        ({}, 959_999, 980_000, Reason.REGRESSION),
        ({"maxRegressionPpm": 0}, 979_999, 980_000, Reason.REGRESSION),
        ({"minQualityPpm": 990_000}, 989_999, 900_000, Reason.POLICY_REJECTED),
        ({"minQualityPpm": 990_000}, 990_000, 900_000, Reason.ADOPTED),
        (NEVER, 1_000_000, 0, Reason.POLICY_REJECTED),
        # The first rule that refuses decides.
        (NEVER, 0, 1_000_000, Reason.POLICY_REJECTED),
        ({"minQualityPpm": 990_000}, 0, 1_000_000, Reason.REGRESSION),
    ],
)
def test_adoption(rules: dict[str, Any], quality: int, in_use: int, reason: Reason) -> None:
    adoption = rules if rules is NEVER else {}
    found = policy(IMAGE, judging={} if rules is NEVER else rules, adoption=adoption)
    answer = decide_adoption(found, Comparison(quality, in_use, "the parent"))
    assert (answer.passed, answer.reason) == (reason is Reason.ADOPTED, reason)
    assert percent(quality) in answer.message


def test_a_regression_is_told_with_its_size_and_its_limit() -> None:
    answer = decide_adoption(policy(IMAGE), Comparison(950_000, 980_000, "digits-1"))
    assert answer.message.endswith("the regression of 30000 ppm exceeds judging.maxRegressionPpm 20000.")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6))
def test_nothing_is_adopted_against_a_limit(quality: int, in_use: int, least: int, most: int) -> None:
    rules = policy(IMAGE, judging={"minQualityPpm": least, "maxRegressionPpm": most})
    comparison = Comparison(quality, in_use, "the parent")
    answer = decide_adoption(rules, comparison)
    assert (objection(rules, comparison) is None) is answer.passed
    assert answer.passed is (quality >= least and in_use - quality <= most)
