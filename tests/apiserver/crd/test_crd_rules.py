"""What the CEL rules of our kinds refuse and let pass, and what cannot change, by a table of cases."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import KINDS, FederationRound, Membership, Release, ReleaseChannel, Resource, Site, Update
from tests.apiserver.crd.server import (
    CHANNEL,
    DIGEST,
    MEMBERSHIP,
    MINIMAL,
    REF,
    RELEASE,
    ROUND,
    SITE,
    UPDATE,
    Api,
    Obj,
    manifest,
    schema_accepts,
    url,
)

REFUSED = [
    (FederationRound, ROUND | {"parent": {}}, "exactly one of releaseRef and channelRef"),
    (
        FederationRound,
        ROUND | {"parent": {"releaseRef": {"name": "a"}, "channelRef": {"name": "b"}}},
        "exactly one of releaseRef and channelRef",
    ),
    (FederationRound, ROUND | {"quorum": 5, "sites": {"maxSites": 4}}, "quorum must not exceed sites.maxSites"),
    (FederationRound, ROUND | {"quorum": 101}, "quorum must not exceed sites.maxSites"),
    (
        FederationRound,
        ROUND | {"deadlines": {"consentSeconds": 60, "submissionSeconds": 59}},
        "consentSeconds must not exceed",
    ),
    (FederationRound, ROUND | {"deadlines": {"submissionSeconds": 299}}, "consentSeconds must not exceed"),
    (FederationRound, ROUND | {"extendDeadlines": {"submissionSeconds": 3599}}, "must not be less than deadlines"),
    (FederationRound, ROUND | {"extendDeadlines": {"consentSeconds": 299}}, "must not be less than deadlines"),
    (FederationRound, ROUND | {"quorum": 2}, "quorum must be at least 2f+1"),
    (FederationRound, ROUND | {"quorum": 4, "aggregation": {"maxFaultySites": 2}}, "quorum must be at least 2f+1"),
    (FederationRound, ROUND | {"aggregation": {"rule": "Mean"}}, "set aggregation.preAggregation to None"),
    (
        FederationRound,
        ROUND | {"aggregation": {"rule": "FLTrust", "preAggregation": "None"}},
        "referenceSite is set for FLTrust",
    ),
    (FederationRound, ROUND | {"aggregation": {"referenceSite": "hub"}}, "referenceSite is set for FLTrust"),
    (FederationRound, ROUND | {"recipe": {"trainFactor": "Both"}}, "trainFactor is Both exactly where"),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "B"}, "aggregation": {"lora": "Svd"}},
        "trainFactor is Both exactly where",
    ),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "A"}, "aggregation": {"lora": "FrozenA"}},
        "set recipe.trainFactor to B",
    ),
    (
        FederationRound,
        ROUND | {"recipe": {"trainFactor": "Both"}, "aggregation": {"lora": "Svd", "rule": "TrimmedMean"}},
        "TrimmedMean by itself or after NNM",
    ),
    (FederationRound, ROUND | {"sites": {"matchLabels": {"not a key": "x"}}}, "every key must match"),
    (Site, SITE | {"role": "Evaluator", "channel": "stable"}, "an Evaluator follows no channel"),
    (
        Membership,
        MEMBERSHIP
        | {"keys": [{"publicKey": "a", "notBefore": "2026-11-25T12:00:00Z", "notAfter": "2026-11-24T12:00:00Z"}]},
        "notAfter must be later than notBefore",
    ),
    (Release, RELEASE | {"sequence": 0}, "sequence 0 is the start of a federation"),
    (Release, {k: v for k, v in RELEASE.items() if k != "roundRef"}, "sequence 0 is the start of a federation"),
    (ReleaseChannel, {"federation": "digits"}, "exactly one of release and follow"),
    (ReleaseChannel, CHANNEL | {"release": "r-1"}, "exactly one of release and follow"),
]
ACCEPTED = [
    *MINIMAL.items(),
    (FederationRound, ROUND | {"quorum": 1, "aggregation": {"rule": "Mean", "preAggregation": "None"}}),
    (FederationRound, ROUND | {"quorum": 5, "aggregation": {"rule": "CAF", "maxFaultySites": 2}}),
    (FederationRound, ROUND | {"aggregation": {"rule": "TrimmedMean", "preAggregation": "NNM"}}),
    (FederationRound, ROUND | {"recipe": {"trainFactor": "Both"}, "aggregation": {"lora": "Svd"}}),
    (FederationRound, ROUND | {"aggregation": {"lora": "Svd"}}),
    (FederationRound, ROUND | {"aggregation": {"lora": "FrozenA"}}),
    (FederationRound, ROUND | {"quorum": 1, "aggregation": {"maxFaultySites": 0}}),
    (FederationRound, ROUND | {"sites": {"matchLabels": {"concordat.dev/tier": "", "zone": "a"}}}),
    (Site, SITE | {"role": "Evaluator"}),
    (Release, {k: v for k, v in RELEASE.items() if k != "roundRef"} | {"sequence": 0}),
    (ReleaseChannel, {"federation": "digits", "release": "r-1"}),
]


@pytest.mark.parametrize(("kind", "spec", "words"), REFUSED)
def test_rules_refuse_with_a_remedy(api: Api, kind: type[Resource], spec: Obj, words: str) -> None:
    answer = api.try_create(manifest(kind, spec))
    assert answer.code == 422, answer.message
    assert words in answer.message
    assert schema_accepts(kind, answer)


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED)
def test_rules_let_pass(api: Api, kind: type[Resource], spec: Obj) -> None:
    answer = api.try_create(manifest(kind, spec))
    assert answer.accepted, answer.message


def test_a_lora_mode_that_was_removed_is_refused_with_those_there_are(api: Api) -> None:
    """Engine review, finding F9."""
    answer = api.try_create(manifest(FederationRound, ROUND | {"aggregation": {"lora": "FactorMean"}}))
    assert answer.code == 422
    assert (
        'spec.aggregation.lora: Unsupported value: "FactorMean": supported values: "Alternating", "FrozenA", "Svd"'
        in answer.message
    )


def test_a_rounds_name_leaves_room_for_the_names_made_of_it(api: Api) -> None:
    assert api.try_create(manifest(FederationRound, ROUND, "r" * 40)).accepted
    assert "at most 40 characters" in api.try_create(manifest(FederationRound, ROUND, "r" * 41)).message


def test_one_entry_per_federation(api: Api) -> None:
    twice = SITE | {"federations": SITE["federations"] * 2}
    assert "Duplicate value" in api.try_create(manifest(Site, twice)).message


# ---- what cannot change

OTHER = {
    Update: ("site", "site-b", "cannot change"),
    Release: ("sequence", 2, "cannot change"),
    Site: ("role", "Evaluator", "role cannot change"),
    Membership: ("role", "Evaluator", "role cannot change"),
    ReleaseChannel: ("federation", "letters", "federation cannot change"),
    FederationRound: ("federation", "letters", "federation cannot change"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_identity_never_changes(api: Api, kind: type[Resource]) -> None:
    field, value, words = OTHER[kind]
    name = f"fixed-{kind.KIND.plural}"
    api.create(kind, MINIMAL[kind], name)
    answer = api.send("PATCH", url(kind, name), {"spec": {field: value}})
    assert answer.code == 422
    assert words in answer.message
    assert api.send("PATCH", url(kind, name), {"metadata": {"labels": {"a": "b"}}}).accepted


@pytest.mark.parametrize("kind", [Update, Release])
def test_requests_do_not_grow_or_shrink(api: Api, kind: type[Resource]) -> None:
    name = f"whole-{kind.KIND.plural}"
    api.create(kind, MINIMAL[kind], name)
    addition: Obj = {"lineage": REF} if kind is Release else {"consentDeadline": "2026-11-24T12:30:00Z"}
    assert "cannot change" in api.send("PATCH", url(kind, name), {"spec": addition}).message


CONTRACT = {"contract": {"artifact": REF, "sha256": DIGEST, "contractedTime": "2026-11-24T12:00:00Z"}}
CHANGES: dict[str, Any] = {
    "parent": {"releaseRef": {"name": "other"}},
    "sites": {"matchLabels": {"a": "b"}},
    "quorum": 4,
    "deadlines": {"consentSeconds": 301},
    "budget": {"maxSteps": 201},
    "recipe": {"seed": 1},
    "gates": {"maxRegressionPpm": 1},
    "screening": {"clipNorm": "11"},
    "aggregation": {"rule": "Mean", "preAggregation": "None"},
    "evaluation": {"minImprovementPpm": 1},
}


def test_a_round_can_be_corrected_until_it_is_contracted(api: Api) -> None:
    api.create(FederationRound, ROUND, "open")
    for field, value in CHANGES.items():
        assert api.send("PATCH", url(FederationRound, "open"), {"spec": {field: value}}).accepted, field


@pytest.fixture(scope="module")
def contracted(api: Api) -> str:
    api.create(FederationRound, ROUND, "contracted")
    answer = api.send("PATCH", url(FederationRound, "contracted", "status"), {"status": CONTRACT})
    assert answer.accepted, answer.message
    return url(FederationRound, "contracted")


@pytest.mark.parametrize("field", CHANGES)
def test_a_contracted_round_is_frozen(api: Api, contracted: str, field: str) -> None:
    answer = api.send("PATCH", contracted, {"spec": {field: CHANGES[field]}})
    assert answer.code == 422
    assert f"{field} cannot change: the contract is signed" in answer.message


@pytest.mark.parametrize("field", [field for field in CHANGES if field != "parent"])
def test_a_contracted_round_loses_no_field(api: Api, contracted: str, field: str) -> None:
    """Removing one brings its default back, which equals what the contract says."""
    answer = api.send("PATCH", contracted, {"spec": {field: None}})
    assert answer.accepted, answer.message
    assert answer.body["spec"][field]


def test_a_contracted_round_can_be_suspended(api: Api, contracted: str) -> None:
    assert api.send("PATCH", contracted, {"spec": {"suspend": True}}).accepted


@pytest.mark.parametrize(
    "status",
    [None, {"contract": None}, {"contract": {**CONTRACT["contract"], "sha256": "sha256:" + "f" * 64}}],
    ids=["status null", "contract null", "another contract"],
)
def test_a_contract_is_not_taken_back(api: Api, contracted: str, status: Any) -> None:
    """Without this rule whoever may write the status could thaw the spec."""
    answer = api.send("PATCH", f"{contracted}/status", {"status": status})
    assert answer.code == 422
    assert "a signed contract cannot be withdrawn or replaced" in answer.message


def test_status_writes_leave_the_generation(api: Api, contracted: str) -> None:
    before = api.send("GET", contracted).body
    after = api.send("PATCH", f"{contracted}/status", {"status": {"summary": "1/5"}}).body
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["status"]["contract"] == CONTRACT["contract"]


def test_status_on_the_main_resource_is_ignored(api: Api) -> None:
    obj = manifest(Update, UPDATE, "sneaky") | {"status": {"verdict": {"reason": "Verified"}}}
    # All that is there is what every new object shows: that nobody has looked at it yet.
    assert api.send("POST", url(Update), obj).body["status"] == {"observedGeneration": 0}


def test_selectable_fields_select(api: Api) -> None:
    api.create(Update, UPDATE, "selected")
    found = api.send("GET", url(Update), fieldSelector="spec.site=site-a,spec.roundRef.name=round-1").body["items"]
    assert "selected" in {item["metadata"]["name"] for item in found}
    assert api.send("GET", url(Update), fieldSelector="spec.site=site-z").body["items"] == []
