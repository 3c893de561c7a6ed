"""The site's own rules: each refusal names field, figure and limit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import Reason, Site
from concordat.protocol.contract import Contract
from concordat_agent.policy import PolicyError, SitePolicy, adoption, consent, percent, verdict
from tests.support.contracts import contract

IMAGE = "registry/learning@sha256:" + "1" * 64
OTHER = "registry/learning@sha256:" + "2" * 64
OPENS = datetime(2026, 11, 24, 12, tzinfo=UTC)
REF = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}


def _contract(**changes: Any) -> Contract:
    rules = {"budget": {"maxSteps": 200, "maxWallSeconds": 1800}, "screening": {"clipNorm": "10"}}
    return contract(**{**rules, **changes})


def _site(*federations: str) -> Site:
    claims = [{"name": name, "dataClaim": "data"} for name in federations]
    return Site.model_validate(
        {
            "metadata": {"name": "site-a", "namespace": "site-a"},
            "spec": {"federations": claims, "workspaceClaim": "workspace"},
        }
    )


def _policy(**changes: Any) -> SitePolicy:
    fields = {"consent": {"maxSteps": 200, "maxWallSeconds": 1800}}
    return SitePolicy.from_json(json.dumps({**fields, **changes}))


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({"maxSteps": 200, "maxWallSeconds": 1800}, None),
        ({"maxSteps": 199, "maxWallSeconds": 1800}, "budget.maxSteps 200 exceeds this site's 199"),
        ({"maxSteps": 200, "maxWallSeconds": 1799}, "budget.maxWallSeconds 1800 exceeds this site's 1799"),
        ({"maxSteps": 200, "maxWallSeconds": 1800, "allowedImages": [IMAGE]}, None),
        ({"maxSteps": 200, "maxWallSeconds": 1800, "allowedImages": [OTHER]}, "not among this site's 1 allowedImages"),
        ({"maxSteps": 200, "maxWallSeconds": 1800, "maxClipNorm": "10.0"}, None),
        ({"maxSteps": 200, "maxWallSeconds": 1800, "maxClipNorm": "9.999999"}, "screening.clipNorm 10 exceeds"),
    ],
)
def test_consent(limits: dict[str, Any], refusal: str | None) -> None:
    answer = consent(_policy(consent=limits), _contract(), _site("digits"))
    assert answer.passed is (refusal is None)
    assert answer.reason is (Reason.CONSENTED if refusal is None else Reason.POLICY_REFUSED)
    assert refusal is None or refusal in answer.message


def test_a_foreign_federation_is_refused() -> None:
    answer = consent(_policy(), _contract(), _site("letters"))
    assert not answer.passed
    assert "federation 'digits' is not among" in answer.message


def test_all_objections_are_told_at_once() -> None:
    answer = consent(_policy(consent={"maxSteps": 1, "maxWallSeconds": 1}), _contract(), _site("letters"))
    assert answer.message.count(";") == 2


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
    ],
)
def test_adoption(rules: dict[str, Any], quality: int, in_use: int, reason: Reason) -> None:
    answer = adoption(_policy(adoption=rules), quality_ppm=quality, in_use_ppm=in_use, in_use="the parent")
    assert (answer.passed, answer.reason) == (reason is Reason.ADOPTED, reason)
    assert percent(quality) in answer.message


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


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_nothing_is_adopted_against_a_limit(quality: int, in_use: int, least: int, fall: int) -> None:
    policy = _policy(adoption={"minQualityPpm": least, "maxRegressionPpm": fall})
    answer = adoption(policy, quality_ppm=quality, in_use_ppm=in_use, in_use="the parent")
    assert answer.passed is (quality >= least and in_use - quality <= fall)
