"""The evaluator's verdict: what a candidate must improve, and what the data must not prove against it."""

from __future__ import annotations

import pytest

from concordat.api import Reason
from concordat_agent.releases.verdict import verdict


@pytest.mark.parametrize(
    ("parent", "candidate", "high", "demanded", "passed"),
    [
        (900_000, 900_000, 910_000, 0, True),
        (900_000, 899_999, 910_000, 0, False),
        (900_000, 909_999, 920_000, 10_000, False),
        (900_000, 910_000, 920_000, 10_000, True),
        (900_000, 880_000, 905_000, -50_000, True),
        (900_000, 880_000, 899_999, -50_000, False),
    ],
)
def test_the_evaluators_verdict(parent: int, candidate: int, high: int, demanded: int, passed: bool) -> None:
    answer = verdict(
        parent_ppm=parent, candidate_ppm=candidate, high_ppm=high, min_improvement_ppm=demanded, examples=360
    )
    assert answer.passed is passed
    assert answer.reason is (Reason.APPROVED if passed else Reason.REJECTED)
    assert "360 hold-out examples" in answer.message
