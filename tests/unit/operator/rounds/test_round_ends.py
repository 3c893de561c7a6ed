"""What ends a round beside its own steps, which rounds wait for it, and what counts once the aggregation has begun."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from concordat.api import ConditionType, FederationRound, Reason
from concordat_operator.finding import Finding
from concordat_operator.releases.plan import superseding
from concordat_operator.rounds.describe import describe, settled, stalled
from concordat_operator.rounds.plan import AGGREGATION_SECONDS, ObservedRound, expires, over
from concordat_operator.rounds.select import Selection, select
from concordat_operator.rounds.slots import Slot, arrivals, counts, slots
from tests.support.hub import REF, Make
from tests.support.presence import condition, present

SENT = {"Consented": "True", "AttestationValid": "True", "Staged": "True", "Trained": "True", "Submitted": "True"}
CONTRACT = {"contract": {"artifact": REF, "sha256": REF["digest"], "contractedTime": "2026-11-24T12:00:00Z"}}


def other(make: Make, status: dict[str, Any], **spec: Any) -> FederationRound:
    return make.round(status, {"name": "r0", "uid": "other"}, **spec)


@pytest.mark.parametrize(
    ("status", "federation", "waits"),
    [
        ({}, "digits", False),
        (CONTRACT, "digits", True),
        (CONTRACT, "letters", False),
        ({**CONTRACT, "conditions": [("Succeeded", "True:Released")]}, "digits", False),
        ({**CONTRACT, "conditions": [("Succeeded", "False:QuorumNotReached")]}, "digits", False),
        ({**CONTRACT, "conditions": [("Succeeded", "Unknown:InProgress")]}, "digits", True),
    ],
)
def test_one_round_of_a_federation_is_open_at_a_time(
    make: Make, status: dict[str, Any], federation: str, waits: bool
) -> None:
    status = {**status, "conditions": make.conditions(**dict(status.get("conditions", [])))}
    rounds = [make.round(), other(make, status, federation=federation)]
    found = select(
        make.round(),
        sites=make.sites(),
        members=make.members(),
        releases=[make.release()],
        channels=[make.channel()],
        rounds=rounds,
        default_image=make.image,
    )
    if waits:
        assert isinstance(found, Finding)
        assert found.reason is Reason.ANOTHER_ROUND_OPEN
        assert "'r0'" in found.message
    else:
        assert isinstance(found, Selection)


@pytest.mark.parametrize(
    ("sequence", "approved", "after", "supersedes"),
    [
        (3, "True:Approved", 0, True),
        (3, "True:Approved", 1, False),
        (2, "True:Approved", 0, False),
        (3, "False:Rejected", 0, False),
        (3, "Unknown:Evaluating", 0, False),
    ],
)
def test_only_what_was_approved_since_supersedes(
    make: Make, sequence: int, approved: str, after: float, supersedes: bool
) -> None:
    found = make.release("r9-1", sequence, Approved=approved)
    newer = superseding([found], "digits", 2, make.now + timedelta(seconds=after))
    assert (newer is found) is supersedes


def test_a_superseded_round_ends_unless_its_own_release_is_approved(make: Make) -> None:
    newer = make.release("r9-1", 9)
    seen = ObservedRound(make.round(), contract=make.contract(), newer=newer)
    ended = present(over(seen))
    assert ended.reason is Reason.PARENT_SUPERSEDED
    assert "r9-1" in ended.message
    mine = make.release("r1-1", 1, Approved="True:Approved")
    aggregate = {"report": REF, "adapter": REF}
    status = make.round({"aggregate": aggregate}).status.aggregate
    released = ObservedRound(make.round(), contract=make.contract(), newer=newer, release=mine, aggregate=status)
    assert present(over(released)).reason is Reason.RELEASED


def test_an_obstacle_ends_a_round_when_all_its_time_is_over(make: Make) -> None:
    problem = Finding(Reason.INVALID, "The API server refused the next step.")
    contract = make.contract()
    seen = ObservedRound(make.round(), contract=contract, slots=slots(contract, {}, make.now), problem=problem)
    assert over(seen) is None
    end = expires(make.round().spec, make.now)
    assert end == make.now + timedelta(seconds=3600 + AGGREGATION_SECONDS + 1800)
    late = ObservedRound(make.round(), contract=contract, slots=seen.slots, problem=problem, expired=end)
    assert present(over(late)).reason is Reason.INVALID


def test_what_the_aggregator_was_given_is_what_counts(make: Make) -> None:
    contract = make.contract("site-a", "site-b", "site-c")
    updates = {site: make.update(site, SENT) for site in ("site-a", "site-b")}
    found = slots(contract, updates, make.now, judged={"site-a", "site-c"})
    assert [slot.sent for slot in found] == [True, False, True]
    assert [slot.out.reason if slot.out else None for slot in found] == [None, "TooLate", None]
    assert counts(found).submitted == 2


def test_updates_arrive_in_the_order_of_writes_and_keep_that_order(make: Make) -> None:
    """Engine review, finding F3: of two updates that are alike the first by name counted."""
    contract, sites = make.contract("site-a", "site-b", "site-c"), ("site-a", "site-b", "site-c")

    def seen(**versions: str) -> list[Slot]:
        written = {f"site-{name}": version for name, version in versions.items()}
        updates = {site: make.update(site, SENT if site in written else {}) for site in sites}
        for site, version in written.items():
            updates[site].metadata.resource_version = version
        return list(slots(contract, updates, make.now))

    assert arrivals([], seen()) == []
    assert arrivals([], seen(a="1000", c="999")) == ["site-c", "site-a"]
    # Written again since, by whomever: the place stays; a site that is new comes last, whatever its version.
    assert arrivals(["site-c", "site-a"], seen(a="1000", b="7", c="2000")) == ["site-c", "site-a", "site-b"]
    assert arrivals(["site-c", "site-gone"], seen(a="1", c="2")) == ["site-c", "site-a"]


def test_a_site_that_was_never_asked_is_told_apart_from_one_that_is_silent(make: Make) -> None:
    contract = make.contract("site-a", "site-b")
    late = contract.consent_deadline
    found = slots(contract, {"site-a": make.update("site-a")}, late, unasked={"site-b": "403: no"})
    outs = [present(slot.out) for slot in found]
    assert [(out.step, out.reason) for out in outs] == [("Consented", "DeadlineExceeded"), ("Requested", "NotAllowed")]
    assert "403: no" in outs[1].message


def test_an_ended_round_that_is_edited_keeps_its_end(make: Make) -> None:
    shown = make.conditions(Ready="True:Released", Succeeded="True:Released")
    round_ = make.round({"conditions": shown, "phase": "Succeeded", "summary": "4/4 verified"}, {"generation": 2})
    status = settled(round_, make.now + timedelta(days=1))
    assert (status.observed_generation, status.phase, status.summary) == (2, "Succeeded", "4/4 verified")
    ready = condition(status.conditions, "Ready")
    assert (ready.is_true, ready.observed_generation, ready.last_transition_time) == (True, 2, make.now)


def test_a_lost_contract_is_told_and_ends_the_round_in_the_end(make: Make) -> None:
    lost = Finding(Reason.ARTIFACT_UNREADABLE, "The round's contract is lost.")
    for over_, phase in ((False, "Stalled"), (True, "Failed")):
        status = stalled(make.round(CONTRACT), lost, make.now, over=over_)
        assert status.phase == phase
        types = {c.type for c in status.conditions if c.is_false}
        assert (ConditionType.SUCCEEDED in types) is over_


def test_a_suspended_round_says_when_its_deadlines_end(make: Make) -> None:
    contract = make.contract()
    seen = ObservedRound(make.round(suspend=True), contract=contract, slots=slots(contract, {}, make.now))
    message = condition(describe(seen, None, make.now).conditions, "Suspended").message
    assert "go on" in message
    assert f"{contract.consent_deadline:%Y-%m-%d %H:%MZ}" in message
