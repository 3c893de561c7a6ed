"""Step 1: who takes part, or why nobody can."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api.round import Factor
from concordat_operator.finding import Finding
from concordat_operator.rounds.contract import contract
from concordat_operator.rounds.select import Selection, evaluator, select
from tests.support.hub import Make


def choose(make: Make, round_: Any, **given: Any) -> Selection | Finding:
    """Select with a working hub, apart from what is given."""
    hub = {
        "sites": make.sites(),
        "releases": [make.release()],
        "channels": [make.channel()],
        "default_image": make.image,
    }
    wanted = {**hub, **given}
    return select(round_, **{"members": make.members(wanted["sites"]), **wanted})


def test_all_sites_of_the_federation_are_selected_by_name(make: Make) -> None:
    found = choose(make, make.round(), sites=[*reversed(make.sites())])
    assert isinstance(found, Selection)
    assert [member.name for member in found.members] == ["site-a", "site-b", "site-c", "site-d", "site-e"]
    assert found.parent.metadata.name == "digits-0"
    assert found.image == make.image


def test_labels_and_the_maximum_narrow_the_selection(make: Make) -> None:
    sites = [make.site(f"site-{n}", labels={"ward": "icu"}) for n in "fgh"] + make.sites()
    found = choose(make, make.round(sites={"matchLabels": {"ward": "icu"}}), sites=sites)
    assert isinstance(found, Selection)
    assert [member.name for member in found.members] == ["site-f", "site-g", "site-h"]
    found = choose(make, make.round(sites={"maxSites": 4}))
    assert isinstance(found, Selection)
    assert len(found.members) == 4


@pytest.mark.parametrize(
    "conditions",
    [{"Ready": "False:HeartbeatLost"}, {"Ready": "Unknown"}],
)
def test_a_site_that_is_not_present_is_not_asked(make: Make, conditions: dict[str, str]) -> None:
    sites = [make.site("site-0", conditions), *make.sites()]
    found = choose(make, make.round(), sites=sites)
    assert isinstance(found, Selection)
    assert "site-0" not in [member.name for member in found.members]


@pytest.mark.attack("F4: a Site that nobody accepted, first by name", "hub, selection", "not asked")
def test_only_members_of_the_federation_are_asked(make: Make) -> None:
    """Security finding F4: whoever may create a Site is not thereby a member, nor the evaluator."""
    sites = [make.site("aaa", role="Evaluator"), make.site("site-0"), *make.sites()]
    found = choose(make, make.round(), sites=sites, members=make.members())
    assert isinstance(found, Selection)
    assert [member.name for member in found.members] == ["site-a", "site-b", "site-c", "site-d", "site-e"]
    its_evaluator = evaluator("digits", sites, make.members())
    assert its_evaluator is not None
    assert its_evaluator.metadata.name == "evaluator"
    elsewhere = make.members(make.sites(), "letters")
    assert evaluator("digits", sites, elsewhere) is None
    found = choose(make, make.round(), members=elsewhere | {"evaluator": make.members()["evaluator"]})
    assert isinstance(found, Finding)
    assert found.reason == "NoEligibleSite"


@pytest.mark.parametrize(
    ("spec", "given", "reason", "says"),
    [
        ({}, {"sites": "evaluator only"}, "NoEligibleSite", "federation 'digits'"),
        ({"sites": {"matchLabels": {"a": "b"}}}, {}, "NoEligibleSite", "a=b"),
        ({"quorum": 9}, {}, "QuorumUnreachable", "spec.quorum is 9, but 5 sites"),
        (
            {"sites": {"maxSites": 4}, "aggregation": {"maxFaultySites": 2}},
            {},
            "TooManyFaults",
            "= 5 updates; there are 4",
        ),
        ({}, {"default_image": None}, "NoImage", "spec.recipe.image"),
        ({}, {"sites": "no evaluator"}, "NoEvaluator", "role Evaluator"),
        ({}, {"channels": []}, "ParentNotFound", "ReleaseChannel 'stable' does not exist"),
        ({}, {"channels": "empty", "releases": "Unknown:Evaluating"}, "ParentNotFound", "is approved yet"),
        ({"parent": {"releaseRef": {"name": "nothing"}}}, {}, "ParentNotFound", "'nothing'"),
        ({"federation": "other"}, {}, "ParentNotFound", "belongs to federation 'digits'"),
        ({}, {"releases": "False:Rejected"}, "ParentNotApproved", "Approved is False"),
        ({}, {"releases": "False:ArtifactUnreadable"}, "ParentNotFound", "Approved is False"),
    ],
)
def test_a_round_that_cannot_start_says_why(
    make: Make, spec: dict[str, Any], given: dict[str, Any], reason: str, says: str
) -> None:
    filled = dict(given)
    if filled.get("sites") == "evaluator only":
        filled["sites"] = [make.site("evaluator", role="Evaluator")]
    if filled.get("sites") == "no evaluator":
        filled["sites"] = make.sites()[:-1]
    if filled.get("channels") == "empty":
        filled["channels"] = [make.channel(None)]
    if isinstance(filled.get("releases"), str):
        filled["releases"] = [make.release(Approved=filled["releases"])]
    found = choose(make, make.round(**spec), **filled)
    assert isinstance(found, Finding)
    assert found.reason == reason
    assert says in found.message


def test_a_round_starts_from_what_its_channel_points_to_before_all_sites_are_offered_it(make: Make) -> None:
    """A thousand sites take a while; a round that began from the release before would discard this one."""
    found = choose(make, make.round(), releases=[make.release(), make.release("r1-1", 1)], channels=[make.channel()])
    assert isinstance(found, Selection)
    assert found.parent.metadata.name == "r1-1"


def test_a_quarantined_site_is_not_asked_and_named_where_that_is_why(make: Make) -> None:
    found = choose(make, make.round(), quarantined={"site-b": "why"})
    assert isinstance(found, Selection)
    assert [member.name for member in found.members] == ["site-a", "site-c", "site-d", "site-e"]
    found = choose(make, make.round(quorum=5), quarantined={"site-b": "why"})
    assert isinstance(found, Finding)
    assert found.message.endswith("Quarantined: site-b.")


def test_fltrust_needs_its_reference_site(make: Make) -> None:
    policy = {"rule": "FLTrust", "preAggregation": "None"}
    found = choose(make, make.round(aggregation={**policy, "referenceSite": "hub"}))
    assert isinstance(found, Finding)
    assert found.reason == "ReferenceMissing"
    assert isinstance(choose(make, make.round(aggregation={**policy, "referenceSite": "site-a"})), Selection)


def test_the_contract_freezes_the_spec_the_keys_and_the_deadlines(make: Make) -> None:
    round_ = make.round(quorum=4, deadlines={"consentSeconds": 60, "submissionSeconds": 600})
    found = choose(make, round_)
    assert isinstance(found, Selection)
    made = contract(round_, found, "isolated", make.now.replace(microsecond=5))
    assert made.quorum == 4
    assert made.image == make.image
    assert made.opens == make.now
    assert (made.consent_deadline - made.opens).total_seconds() == 60
    assert (made.submission_deadline - made.opens).total_seconds() == 600
    assert made.sites[0].key_thumbprint == make.key.thumbprint
    assert made.runtime_class_name == "isolated"
    assert contract(round_, found, "isolated", make.now).wire() == made.wire()


@pytest.mark.parametrize(
    ("mode", "asked", "trained_before", "expected"),
    [
        ("Alternating", None, None, "B"),
        ("Alternating", None, "A", "B"),
        ("Alternating", None, "B", "A"),
        ("Alternating", None, "Both", "B"),
        ("Alternating", "B", "B", "B"),
        ("FrozenA", None, "B", "B"),
        ("Svd", None, "B", "Both"),
    ],
)
def test_the_factor_that_the_parents_round_did_not_train_has_its_turn(
    make: Make, mode: str, asked: str | None, trained_before: str | None, expected: str
) -> None:
    parent = make.release()
    parent.spec.trained_factor = Factor(trained_before) if trained_before else None
    recipe = {"trainFactor": asked} if asked else {}
    round_ = make.round(recipe=recipe, aggregation={"lora": mode})
    found = choose(make, round_, releases=[parent])
    assert isinstance(found, Selection)
    assert contract(round_, found, "isolated", make.now).recipe.train_factor == expected
