"""Consent to a contract: each refusal names field, value and limit."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import Reason, Site
from concordat.protocol.contract import Contract
from concordat_agent.policy import SitePolicy
from concordat_agent.updates.consent import consent
from tests.support.contracts import contract
from tests.support.policies import policy

IMAGE = "registry/learning@sha256:" + "1" * 64
OTHER = "registry/learning@sha256:" + "2" * 64


def _contract(**changes: Any) -> Contract:
    rules = {"budget": {"maxSteps": 200, "maxWallSeconds": 1800}, "screening": {"clipNorm": "10"}}
    return contract(**{**rules, **changes})


def _site(*federations: str) -> Site:
    claims = [{"name": name, "dataClaim": "data"} for name in federations]
    return Site.model_validate(
        {
            "metadata": {"name": "site-a", "namespace": "site-a"},
            "spec": {"federations": claims, "workspaceClaim": "workspace", "judgingImage": IMAGE},
        }
    )


def _policy(**limits: Any) -> SitePolicy:
    return policy(IMAGE, {"maxSteps": 200, "maxWallSeconds": 1800, **limits})


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({}, None),
        ({"maxSteps": 199}, "budget.maxSteps 200 exceeds this site's 199"),
        ({"maxWallSeconds": 1799}, "budget.maxWallSeconds 1800 exceeds this site's 1799"),
        ({"allowedImages": [OTHER]}, "not among this site's 1 allowedImages"),
        ({"maxClipNorm": "10.0"}, None),
        ({"maxClipNorm": "9.999999"}, "screening.clipNorm 10 exceeds"),
    ],
)
def test_consent(limits: dict[str, Any], refusal: str | None) -> None:
    answer = consent(_policy(**limits), _contract(), _site("digits"))
    assert answer.passed is (refusal is None)
    assert answer.reason is (Reason.CONSENTED if refusal is None else Reason.POLICY_REFUSED)
    assert refusal is None or refusal in answer.message


def test_a_foreign_federation_is_refused() -> None:
    answer = consent(_policy(), _contract(), _site("letters"))
    assert not answer.passed
    assert "federation 'digits' is not among" in answer.message


def test_all_objections_are_told_at_once() -> None:
    answer = consent(_policy(maxSteps=1, maxWallSeconds=1), _contract(), _site("letters"))
    assert answer.message.count(";") == 2
