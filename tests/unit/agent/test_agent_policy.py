"""The policy file: a wrong one is refused with its field, and equal rules have equal digests."""

from __future__ import annotations

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


def test_equal_rules_have_equal_digests() -> None:
    spelled_out = _policy(gates={"maxRegressionPpm": 1_000_000}, adoption={"mode": "Automatic"})
    assert spelled_out.digest == _policy().digest
    assert _policy(adoption={"mode": "Never"}).digest != _policy().digest
