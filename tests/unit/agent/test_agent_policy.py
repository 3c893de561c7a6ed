"""The policy file: a wrong one is refused with its field, and equal rules have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from concordat_agent.policy import PolicyError, SitePolicy
from tests.support.policies import policy

IMAGE = "registry/learning@sha256:" + "1" * 64
CONSENT = f'{{"maxSteps":1,"maxWallSeconds":1,"allowedImages":["{IMAGE}"]}}'


def _policy(**changes: Any) -> SitePolicy:
    return policy(IMAGE, **changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "policy.json"),
        ("[]", "policy.json"),
        ("{}", "consent"),
        ('{"consent":{"maxSteps":1}}', "consent.maxWallSeconds"),
        ('{"consent":{"maxSteps":"1","maxWallSeconds":1}}', "consent.maxSteps"),
        (f'{{"consent":{CONSENT[:-1]},"maxStep":1}}}}', "consent.maxStep"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1,"allowedImages":["a:latest"]}}', "consent.allowedImages.0"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1}}', "consent.allowedImages"),
        ('{"consent":{"maxSteps":1,"maxWallSeconds":1,"allowedImages":[]}}', "consent.allowedImages"),
        (f'{{"consent":{CONSENT}}}', "judging"),
        (f'{{"consent":{CONSENT},"judging":{{"image":"a:latest","minQualityPpm":1}}}}', "judging.image"),
        (f'{{"consent":{CONSENT},"judging":{{"image":"{IMAGE}"}}}}', "judging.minQualityPpm"),
        (f'{{"consent":{CONSENT},"judging":{{"image":"{IMAGE}","minQualityPpm":0}}}}', "judging.minQualityPpm"),
        (
            f'{{"consent":{CONSENT},"judging":{{"image":"{IMAGE}","minQualityPpm":1}},"adoption":{{"mode":"Sometimes"}}}}',
            "adoption.mode",
        ),
    ],
)
def test_a_wrong_policy_is_refused_with_its_field(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        SitePolicy.from_json(text)


def test_every_wrong_field_is_named() -> None:
    rules = {"maxSteps": 0, "maxWallSeconds": 1, "allowedImages": [IMAGE], "hours": {"timeZone": "UTC", "from": "8:00"}}
    with pytest.raises(PolicyError) as refused:
        SitePolicy.from_json(json.dumps({"consent": rules, "allowedBases": ["digits"], "judgin": {}}))
    assert [problem.partition(" ")[0].rstrip(":") for problem in refused.value.problems] == [
        "consent.maxSteps",
        "consent.hours.from",
        "consent.hours.to",
        "judging",
        "allowedBases.0",
        "judgin",
    ]
    assert "got 0" in str(refused.value)
    assert "judging is missing: set it; " in str(refused.value)
    assert str(refused.value).endswith("correct the policy in the site's Helm values")


def test_a_rule_that_is_absent_changes_no_digest() -> None:
    """An agent of a newer version shows the digest that the site's people know."""
    assert "allowedBases" not in _policy().wire()
    assert "hours" not in _policy().wire()["consent"]


def test_hours_are_written_as_they_are_read() -> None:
    hours = {"timeZone": "Europe/Berlin", "from": "20:00", "to": "06:00"}
    assert _policy(consent={"hours": hours}).wire()["consent"]["hours"] == hours


def test_equal_rules_have_equal_digests() -> None:
    spelled_out = _policy(gates={"maxRegressionPpm": 1_000_000}, adoption={"mode": "Automatic"})
    assert spelled_out.digest == _policy().digest
    assert _policy(adoption={"mode": "Never"}).digest != _policy().digest
