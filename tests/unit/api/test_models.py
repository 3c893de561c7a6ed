"""Models: round trip over the wire, leniency on read, and what the reference says about reasons."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from concordat.api import KINDS, FederationRound, Membership, Reason, Release, ReleaseChannel, Resource, Site, Update
from concordat.api.reasons_help import REASON_HELP
from concordat.api.release import release_name
from concordat.api.round import IMMUTABLE_FIELDS, FederationRoundSpec
from concordat.api.types import ArtifactRef
from concordat.api.update import update_name

DIGEST = "sha256:" + "0123456789abcdef" * 4
REF = {"repository": "digits/adapters", "digest": DIGEST}
ROUND = {"name": "round-1", "namespace": "concordat", "uid": "12345678-aaaa-bbbb-cccc-1234567890ab"}
META = {"name": "one", "namespace": "site-a", "uid": "u", "generation": 2, "resourceVersion": "7"}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 2,
    "lastTransitionTime": "2026-11-24T12:00:00Z",
    "reason": "Released",
    "message": "done",
}
FIGURES = {"examples": 9, "parentPpm": 1, "candidatePpm": 2, "candidateLowPpm": 1, "candidateHighPpm": 3}
STATUS = {"observedGeneration": 2, "conditions": [CONDITION]}
KEY = {"thumbprint": "SHA256:" + "A" * 43, "publicKey": "-----BEGIN PUBLIC KEY-----\n"}
SHOWN = {"publicKey": KEY["publicKey"], "proof": "{}"}

COMPLETE: dict[type[Resource], dict[str, Any]] = {
    FederationRound: {
        "spec": {"federation": "digits", "parent": {"releaseRef": {"name": "genesis"}}, "quorum": 4},
        "status": {
            **STATUS,
            "contract": {"artifact": REF, "sha256": DIGEST, "contractedTime": "2026-11-24T12:00:00Z"},
            "counts": {"selected": 5, "consented": 4, "trained": 4, "submitted": 4, "verified": 3, "out": 2},
            "droppedSites": [{"site": "site-d", "step": "Verified", "reason": "NormExceeded", "message": "too large"}],
            "aggregate": {"report": REF},
            "evaluation": FIGURES,
        },
    },
    Membership: {
        "spec": {
            "role": "Trainer",
            "federations": ["digits"],
            "keys": [{"publicKey": KEY["publicKey"], "notAfter": "2026-11-24T12:00:00Z"}],
            "suspended": False,
        },
        "status": STATUS,
    },
    Site: {
        "spec": {
            "role": "Trainer",
            "federations": [{"name": "digits", "dataClaim": "data"}],
            "workspaceClaim": "w",
            "judgingImage": "x@sha256:" + "1" * 64,
        },
        "status": {
            **STATUS,
            "agent": {"key": SHOWN, "previousKey": SHOWN, "policyDigest": DIGEST, "version": "0.1.0"},
            "champion": {"release": "r-1", "sequence": 1, "artifact": REF, "qualityPpm": 900_000},
            "acceptedKey": KEY,
        },
    },
    Update: {
        "spec": {
            "federation": "digits",
            "roundRef": ROUND,
            "site": "site-a",
            "contract": REF,
            "contractDigest": DIGEST,
            "consentDeadline": "2026-11-24T12:00:00Z",
            "submissionDeadline": "2026-11-24T13:00:00Z",
        },
        "status": {
            **STATUS,
            "consent": {"statement": REF},
            "submission": {
                "artifact": REF,
                "statement": REF,
                "norm": "1.5",
                "clipped": False,
                "examples": 10,
                "parentPpm": 1,
                "candidatePpm": 2,
            },
            "verdict": {"reason": "Verified", "norm": "1.5", "statement": REF},
        },
    },
    Release: {
        "spec": {"federation": "digits", "sequence": 1, "base": REF, "adapter": REF, "roundRef": ROUND},
        "status": {
            **STATUS,
            "decision": {"statement": REF, "evaluation": FIGURES},
            "rollout": {"offered": 5, "adopted": 4, "rejected": 1, "worstRegressionPpm": -3},
        },
    },
    ReleaseChannel: {
        "spec": {"federation": "digits", "follow": "Approved"},
        "status": {**STATUS, "release": {"name": "r-1"}, "sequence": 1, "summary": "4/5 adopted"},
    },
}


def body(kind: type[Resource]) -> dict[str, Any]:
    return {"apiVersion": "concordat.dev/v1alpha1", "kind": kind.KIND.kind, "metadata": META, **COMPLETE[kind]}


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(contains(w, p) for w, p in zip(whole, part, strict=True))
    return bool(whole == part)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_is_written(kind: type[Resource]) -> None:
    first = kind.model_validate(body(kind))
    wire = first.wire()
    assert contains(wire, body(kind))
    assert kind.model_validate(wire) == first


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_crd_cannot_crash_an_older_reader(kind: type[Resource]) -> None:
    newer = body(kind)
    newer["spec"] = {**newer["spec"], "fromTheFuture": {"a": 1}}
    newer["metadata"] = {**META, "managedFields": []}
    assert kind.model_validate(newer) == kind.model_validate(body(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_object_has_an_empty_status(kind: type[Resource]) -> None:
    fresh = body(kind)
    del fresh["status"]
    status = kind.model_validate(fresh).wire()["status"]
    assert not any(status.values()), "nothing is observed yet"


def test_a_time_needs_a_zone() -> None:
    naive = body(Update)
    naive["spec"] = {**naive["spec"], "consentDeadline": datetime(2026, 11, 24).isoformat()}  # noqa: DTZ001
    with pytest.raises(ValidationError, match="a time needs a zone"):
        Update.model_validate(naive)


def test_every_spec_field_but_suspend_extension_and_approval_is_frozen_with_the_contract() -> None:
    free = ("federation", "suspend", "extend_deadlines", "approve_held")
    fields = {name for name in FederationRoundSpec.model_fields if name not in free}
    assert set(IMMUTABLE_FIELDS) == fields
    frozen = {rule["fieldPath"] for rule in FederationRound.KIND.rules if "contract is signed" in rule["message"]}
    assert frozen == {f".spec.{field}" for field in fields}


def test_names_are_functions_of_what_they_name() -> None:
    assert update_name("round-1", ROUND["uid"]) == "round-1-12345678"
    assert release_name("round-1", "uid", ArtifactRef.model_validate(REF)).startswith("round-1-")


def test_every_reason_is_explained() -> None:
    assert set(REASON_HELP) == set(Reason)
    for reason, text in REASON_HELP.items():
        assert text.meaning.endswith("."), reason
        assert not text.remedy or text.remedy.endswith((".", "`.")), reason


def test_the_reference_lists_every_reason_and_kind() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/api.md").read_text()
    for reason in Reason:
        assert f"| `{reason.value}` |" in page
    for kind in KINDS:
        assert f"\n## {kind.KIND.kind}\n" in page
