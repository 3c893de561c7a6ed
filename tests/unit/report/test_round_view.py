"""The table of a round, from objects as the API server returns them."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import FederationRound, Release, Site, Update
from concordat.report.round_view import own_quality, percent, view

NOW = "2026-11-24T12:00:00Z"
DIGEST = "sha256:" + "a" * 64
REF = {"repository": "digits/x", "digest": DIGEST}


def condition(type_: str, status: str, reason: str = "PolicyRefused", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def round_(*conditions: dict[str, Any], **status: Any) -> FederationRound:
    return FederationRound.model_validate(
        {
            "metadata": {"name": "r1", "namespace": "concordat", "uid": "u1"},
            "spec": {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}},
            "status": {"conditions": list(conditions), **status},
        }
    )


def update(site: str, *conditions: dict[str, Any], **status: Any) -> Update:
    return Update.model_validate(
        {
            "metadata": {"name": "r1-u1", "namespace": site, "labels": {"concordat.dev/round-uid": "u1"}},
            "spec": {
                "federation": "digits",
                "roundRef": {"name": "r1", "namespace": "concordat", "uid": "u1"},
                "site": site,
                "contract": REF,
                "contractDigest": DIGEST,
                "consentDeadline": NOW,
                "submissionDeadline": NOW,
            },
            "status": {"conditions": list(conditions), **status},
        }
    )


def site(name: str) -> Site:
    return Site.model_validate(
        {
            "metadata": {"name": name, "namespace": name},
            "spec": {
                "federations": [{"name": "digits", "dataClaim": "data"}],
                "workspaceClaim": "workspace",
                "judgingImage": "x@sha256:" + "1" * 64,
            },
        }
    )


def copy(namespace: str, *conditions: dict[str, Any], **status: Any) -> Release:
    return Release.model_validate(
        {
            "metadata": {"name": "r1-aaaaaaaa", "namespace": namespace},
            "spec": {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF},
            "status": {"conditions": list(conditions), **status},
        }
    )


def test_sites_are_sorted_and_the_first_failure_is_told() -> None:
    declined = condition("Consented", "False", "PolicyRefused", "600 steps exceed this site's 500")
    shown = view(round_(), [update("site-b"), update("site-a", declined)], [], [])
    assert [r.site for r in shown.sites] == ["site-a", "site-b"]
    assert shown.sites[0].verdict == "PolicyRefused"
    assert shown.sites[0].message == "600 steps exceed this site's 500"
    assert shown.sites[1].verdict == ""


@pytest.mark.parametrize(
    ("conditions", "decision"),
    [
        ([], "pending"),
        ([condition("Adopted", "True", "Adopted")], "adopted"),
        ([condition("Adopted", "False", "PolicyRejected")], "rejected: PolicyRejected"),
    ],
)
def test_decision_of_a_site(conditions: list[dict[str, Any]], decision: str) -> None:
    of_round = round_(release={"name": "r1-aaaaaaaa"})
    shown = view(of_round, [update("site-a")], [copy("site-a", *conditions)], [site("site-a")])
    assert shown.sites[0].decision == decision


def test_another_rounds_updates_do_not_count() -> None:
    other = update("site-a")
    other.metadata.labels["concordat.dev/round-uid"] = "u2"
    other.spec.round_ref.uid = "u2"
    assert view(round_(), [other], [], []).sites == ()


@pytest.mark.parametrize(
    ("conditions", "finished"),
    [([], False), ([condition("Succeeded", "Unknown")], False), ([condition("Succeeded", "False")], True)],
)
def test_finished(conditions: list[dict[str, Any]], finished: bool) -> None:
    assert view(round_(*conditions), [], [], []).finished is finished


def decided(examples: int, parent_ppm: int, candidate_ppm: int) -> dict[str, Any]:
    figures = {"parentPpm": parent_ppm, "candidatePpm": candidate_ppm, "candidateLowPpm": 0}
    return {"statement": REF, "evaluation": {"examples": examples, "candidateHighPpm": 1_000_000, **figures}}


@pytest.mark.parametrize(
    ("decision", "says"),
    [
        (decided(84, 785_714, 761_905), "66 → 64 of 84"),
        (decided(999_999, 500_001, 1_000_000), "500000 → 999999 of 999999"),
        (decided(3_000_000, 500_000, 510_000), "50.0 % → 51.0 %"),
        (None, "76.0 %"),
    ],
)
def test_the_quality_on_a_sites_own_data_is_counted(decision: dict[str, Any] | None, says: str) -> None:
    submission = {
        "artifact": REF,
        "statement": REF,
        "norm": "9",
        "clipped": False,
        "examples": 125,
        "parentPpm": 760_000,
        "candidatePpm": 0,
    }
    of_round = round_(release={"name": "r1-aaaaaaaa"})
    status = {"decision": decision} if decision else {}
    shown = view(of_round, [update("site-a", submission=submission)], [copy("site-a", **status)], [site("site-a")])
    assert own_quality(shown.sites[0]) == says


def test_percent() -> None:
    assert percent(875_000) == "87.5 %"
    assert percent(None) == "–"


def test_it_serialises() -> None:
    shown = view(round_(condition("Ready", "False", "InProgress", "3 of 5")), [update("site-a")], [], [])
    assert shown.as_json()["message"] == "3 of 5"
