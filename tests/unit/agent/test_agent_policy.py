"""The policy file: a wrong one is refused with its field, and equal rules have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from concordat_agent.policy import PolicyError, SitePolicy


def _policy(**changes: Any) -> SitePolicy:
    fields = {"consent": {"maxSteps": 200, "maxWallSeconds": 1800}}
    return SitePolicy.from_json(json.dumps({**fields, **changes}))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "policy.json"),
        ("[]", "policy.json"),
        ("{}", "consent"),
        ('{"consent":{"maxSteps":1}}', "consent.maxWallSeconds"),
        ('{"consent":{"maxSteps":"1","maxWallSeconds":1}}', "consent.maxSteps"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1,"maxStep":1}}', "consent.maxStep"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1,"allowedImages":["a:latest"]}}', "consent.allowedImages.0"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1},"adoption":{"mode":"Sometimes"}}', "adoption.mode"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_field(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        SitePolicy.from_json(text)


def test_equal_rules_have_equal_digests() -> None:
    spelled_out = _policy(gates={"maxRegressionPpm": 1_000_000}, adoption={"mode": "Automatic"})
    assert spelled_out.digest == _policy().digest
    assert _policy(adoption={"mode": "Never"}).digest != _policy().digest
