"""Consent to a contract: each refusal names field, value and limit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from concordat.api import Reason
from concordat.protocol.contract import Contract
from concordat_agent.policy import SitePolicy
from concordat_agent.updates.consent import CONSENT_CHECKS, Request, consent, opening
from tests.support.contracts import OPENS, REF, contract
from tests.support.policies import policy

IMAGE = "registry/learning@sha256:" + "1" * 64
OTHER = "registry/learning@sha256:" + "2" * 64
OTHER_BASE = "sha256:" + "b" * 64


def _contract(**changes: Any) -> Contract:
    rules = {"budget": {"maxSteps": 200, "maxWallSeconds": 1800}, "screening": {"clipNorm": "10"}}
    return contract(**{**rules, **changes})


def _request(*federations: str, spent: int = 0, **changes: Any) -> Request:
    """What the site is asked for at 13:00 in Berlin; it has five minutes to answer."""
    asked = _contract(**changes)
    return Request(
        contract=asked,
        federations=federations or ("digits",),
        at=asked.opens,
        deadline=asked.consent_deadline,
        spent_seconds=spent,
    )


def _policy(**limits: Any) -> SitePolicy:
    both = {name: limits.pop(name) for name in ("allowedBases", "requiredRuntimeClass") if name in limits}
    return policy(IMAGE, {"maxSteps": 200, "maxWallSeconds": 1800, **limits}, **both)


def _hours(begin: str, end: str) -> dict[str, str]:
    return {"timeZone": "Europe/Berlin", "from": begin, "to": end}


@pytest.mark.parametrize(
    ("limits", "refusal"),
    [
        ({}, None),
        ({"maxSteps": 199}, "budget.maxSteps 200 exceeds this site's 199"),
        ({"maxWallSeconds": 1799}, "budget.maxWallSeconds 1800 exceeds this site's 1799"),
        ({"maxWallSecondsPerDay": 1800}, None),
        (
            {"maxWallSecondsPerDay": 1799},
            "budget.maxWallSeconds 1800, with 0 consented to in the 24 hours before, exceeds this site's "
            "maxWallSecondsPerDay 1799",
        ),
        ({"allowedImages": [OTHER]}, "not among this site's 1 allowedImages"),
        ({"maxClipNorm": "10.0"}, None),
        ({"maxClipNorm": "9.999999"}, "screening.clipNorm 10 exceeds"),
        ({"allowedBases": [OTHER_BASE, REF.digest]}, None),
        ({"allowedBases": [OTHER_BASE]}, f"base {REF.digest} is not among this site's 1 allowedBases"),
        (
            {"requiredRuntimeClass": "gvisor"},
            "runtimeClassName is absent, this site's requiredRuntimeClass is gvisor",
        ),
        ({"hours": _hours("12:00", "13:01")}, None),
        (
            {"hours": _hours("20:00", "06:00")},
            "13:00 is outside this site's hours, 20:00 to 06:00 Europe/Berlin, and it is too late to wait for them",
        ),
    ],
)
def test_consent(limits: dict[str, Any], refusal: str | None) -> None:
    answer = consent(_policy(**limits), _request())
    assert answer.passed is (refusal is None)
    assert answer.reason is (Reason.CONSENTED if refusal is None else Reason.POLICY_REFUSED)
    assert refusal is None or refusal in answer.message


def test_the_runtime_class_must_be_the_required_one() -> None:
    assert consent(_policy(requiredRuntimeClass="gvisor"), _request(runtimeClassName="gvisor")).passed
    answer = consent(_policy(requiredRuntimeClass="gvisor"), _request(runtimeClassName="runc"))
    assert "runtimeClassName is runc" in answer.message


def test_what_was_consented_to_before_counts_against_the_day() -> None:
    rules = _policy(maxWallSecondsPerDay=3600)
    assert consent(rules, _request(spent=1800)).passed
    answer = consent(rules, _request(spent=1801))
    assert "with 1801 consented to" in answer.message


def test_a_foreign_federation_is_refused() -> None:
    answer = consent(_policy(), _request("letters"))
    assert not answer.passed
    assert "federation 'digits' is not among" in answer.message


def test_all_objections_are_told_at_once() -> None:
    strict = _policy(
        allowedBases=[OTHER_BASE],
        requiredRuntimeClass="gvisor",
        maxSteps=1,
        maxWallSeconds=1,
        maxWallSecondsPerDay=1,
        hours=_hours("20:00", "06:00"),
        allowedImages=[OTHER],
        maxClipNorm="1",
    )
    answer = consent(strict, _request("letters"))
    assert answer.reason is Reason.POLICY_REFUSED
    assert answer.message.count(";") == len(CONSENT_CHECKS) - 1
    assert len(answer.message) < 1024, "a condition shows all of it"


def test_a_site_waits_for_its_hours_if_they_begin_before_the_deadline() -> None:
    rules, request = _policy(hours=_hours("13:03", "14:00")), _request()
    answer = consent(rules, request)
    assert (answer.passed, answer.reason) == (False, Reason.WAITING)
    assert "from 13:03 to 14:00 Europe/Berlin: it answers at 2026-11-24 12:03Z" in answer.message
    assert opening(rules, request) == OPENS + timedelta(minutes=3)


def test_what_is_refused_anyway_does_not_wait() -> None:
    answer = consent(_policy(maxSteps=1, hours=_hours("13:03", "14:00")), _request())
    assert answer.reason is Reason.POLICY_REFUSED
    assert answer.message == "budget.maxSteps 200 exceeds this site's 1."


def test_hours_that_begin_with_the_deadline_are_too_late() -> None:
    assert consent(_policy(hours=_hours("13:05", "14:00")), _request()).reason is Reason.POLICY_REFUSED
