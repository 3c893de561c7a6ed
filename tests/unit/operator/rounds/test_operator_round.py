"""Which step of a round is due, when it has ended, and how it is described."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api import ConditionType, Reason, find, is_true
from concordat.api.round_status import AggregateStatus, AggregationStatus, ContractStatus
from concordat_operator.finding import Finding
from concordat_operator.rounds.describe import describe
from concordat_operator.rounds.plan import ObservedRound, Step, next_step, over, wake
from concordat_operator.rounds.select import Selection
from concordat_operator.rounds.slots import counts, slots
from tests.support.hub import Make
from tests.support.presence import condition

DONE = {"Consented": "True", "AttestationValid": "True", "Staged": "True", "Trained": "True", "Submitted": "True"}
SITES = ("site-a", "site-b", "site-c", "site-d", "site-e")


def observe(make: Make, updates: dict[str, dict[str, str]], *, after: float = 60, **facts: Any) -> ObservedRound:
    """A contracted round whose sites have Updates with those conditions."""
    contract = make.contract()
    found = {site: make.update(site, conditions) for site, conditions in updates.items()}
    now = make.now + timedelta(seconds=after)
    if "job" in facts:
        facts.setdefault("aggregation", AggregationStatus.model_validate({"request": make.ref}))
    return ObservedRound(
        facts.pop("round", make.round()), contract=contract, slots=slots(contract, found, now), **facts
    )


def contract_status(make: Make) -> ContractStatus:
    return ContractStatus.model_validate(
        {"artifact": make.ref, "sha256": make.ref["digest"], "contractedTime": make.now}
    )


def aggregate(make: Make, *, adapter: bool = True, **more: Any) -> AggregateStatus:
    made = {"adapter": make.ref, "lineage": make.ref, "reason": "Aggregated", "message": "5 updates"}
    none = {"reason": "QuorumNotReached", "message": "2 updates verified, quorum is 3"}
    return AggregateStatus.model_validate({"report": make.ref, **(made if adapter else none), **more})


def test_the_story_of_a_round(make: Make) -> None:
    selection = Selection(make.release(), tuple(make.members(make.sites()[:5]).values()), make.image)
    bare = make.round(metadata={"finalizers": []})
    assert next_step(ObservedRound(bare, selection=selection)) is Step.FINALIZE
    assert next_step(ObservedRound(make.round(), selection=selection)) is Step.CONTRACT
    assert next_step(observe(make, {})) is Step.REQUEST
    asked: dict[str, dict[str, str]] = {site: {} for site in SITES}
    assert next_step(observe(make, asked)) is Step.REST
    handed_in = dict.fromkeys(SITES, DONE)
    assert next_step(observe(make, handed_in)) is Step.AGGREGATE
    assert next_step(observe(make, handed_in, job=None)) is Step.LAUNCH
    assert next_step(observe(make, handed_in, job=make.job())) is Step.REST
    assert next_step(observe(make, handed_in, job=make.job("BackoffLimitExceeded"))) is Step.RESTART
    assert next_step(observe(make, handed_in, job=make.job("Complete"))) is Step.JUDGE
    judged = {site: {**DONE, "Verified": "True:Verified"} for site in SITES}
    made = aggregate(make)
    assert next_step(observe(make, judged, aggregate=made)) is Step.PROPOSE
    candidate = make.release("r1-1", 1, Approved="Unknown:Evaluating")
    assert next_step(observe(make, judged, aggregate=made, release=candidate)) is Step.REST
    seen = observe(make, judged, aggregate=made, release=make.release("r1-1", 1, Approved="True:Approved"))
    assert next_step(seen) is Step.REST
    ended = over(seen)
    assert ended is not None
    assert ended.reason == Reason.RELEASED


def test_a_suspended_round_starts_nothing_and_goes_on_where_it_was(make: Make) -> None:
    held = observe(make, {}, round=make.round(suspend=True))
    assert next_step(held) is Step.REST
    status = describe(held, contract_status(make), make.now)
    assert is_true(status.conditions, ConditionType.SUSPENDED)
    assert find(status.conditions, ConditionType.RECONCILING) is None
    assert status.phase == "Suspended"
    assert next_step(replace(held, round=make.round())) is Step.REQUEST


def test_a_deleted_round_is_cleaned_up_whatever_its_state(make: Make) -> None:
    deleted = make.round(metadata={"deletionTimestamp": make.now})
    assert next_step(observe(make, {}, round=deleted)) is Step.CLEAN_UP
    assert next_step(ObservedRound(deleted)) is Step.CLEAN_UP
    bare = make.round(metadata={"deletionTimestamp": make.now, "finalizers": []})
    assert next_step(ObservedRound(bare)) is Step.REST


@pytest.mark.parametrize(
    ("conditions", "after", "step", "reason"),
    [
        ({"Consented": "False:PolicyRefused"}, 60, "Consented", "PolicyRefused"),
        ({"Consented": "True", "AttestationValid": "False:KeyPossessionNotProved"}, 60, "AttestationValid", None),
        ({"Consented": "True", "Staged": "False:ArtifactUnreadable"}, 60, "Staged", "ArtifactUnreadable"),
        ({"Consented": "True", "Trained": "False:OOMKilled", "Submitted": "False:NoCandidate"}, 60, "Trained", None),
        ({"Consented": "True", "Trained": "True", "Submitted": "False:GateFailed"}, 60, "Submitted", "GateFailed"),
        ({**DONE, "Verified": "False:NormExceeded"}, 60, "Verified", "NormExceeded"),
        ({}, 301, "Consented", "DeadlineExceeded"),
        ({"Consented": "True", "Trained": "False:Training"}, 3601, "Submitted", "DeadlineExceeded"),
    ],
)
def test_a_site_that_drops_out_is_named_with_its_step(
    make: Make, conditions: dict[str, str], after: float, step: str, reason: str | None
) -> None:
    seen = observe(make, {"site-a": conditions, **dict.fromkeys(SITES[1:], DONE)}, after=after)
    (gone,) = [slot.out for slot in seen.slots if slot.out is not None]
    assert gone.site == "site-a"
    assert gone.step == step
    assert reason is None or gone.reason == reason
    assert next_step(seen) is Step.AGGREGATE
    status = describe(seen, contract_status(make), make.now)
    assert [e.site for e in status.dropped_sites] == ["site-a"]


@pytest.mark.parametrize(
    ("conditions", "after"),
    [
        ({}, 60),
        ({"Consented": "True"}, 301),
        ({"Consented": "True", "Trained": "False:Training"}, 60),
        ({"Consented": "True", "Trained": "True"}, 60),
    ],
)
def test_a_site_that_is_still_at_it_is_waited_for(make: Make, conditions: dict[str, str], after: float) -> None:
    seen = observe(make, {"site-a": conditions, **dict.fromkeys(SITES[1:], DONE)}, after=after)
    assert [slot.site for slot in seen.slots if slot.waited_for] == ["site-a"]
    assert next_step(seen) is Step.REST
    message = condition(describe(seen, contract_status(make), make.now).conditions, "UpdatesCollected").message
    assert "4 of 5 updates submitted; waiting for site-a until 2026-11-24 1" in message


def test_below_quorum_the_round_fails_and_names_who_is_missing(make: Make) -> None:
    out = {s: {"Consented": "False:PolicyRefused"} for s in SITES[:3]}
    seen = observe(make, {**out, **dict.fromkeys(SITES[3:], DONE)})
    ended = over(seen)
    assert ended is not None
    assert ended.reason == Reason.QUORUM_NOT_REACHED
    for site in SITES[:3]:
        assert f"{site} (Consented: PolicyRefused)" in ended.message
    assert "No champion was touched" in ended.message
    assert next_step(seen) is Step.REST
    status = describe(seen, contract_status(make), make.now)
    for type_, value in (
        ("Succeeded", "False"),
        ("Ready", "False"),
        ("Stalled", "True"),
        ("UpdatesCollected", "False"),
    ):
        assert condition(status.conditions, type_).status.value == value
    assert find(status.conditions, ConditionType.RECONCILING) is None


def test_a_site_that_had_not_answered_when_the_round_failed_is_told_apart(make: Make) -> None:
    seen = observe(make, {s: {"Consented": "False:PolicyRefused"} for s in SITES[:3]})
    ended = over(seen)
    assert ended is not None
    assert ended.message.startswith("2 of 5 sites left (site-d, site-e), quorum is 3: site-a (Consented: ")
    assert [lost.site for lost in describe(seen, contract_status(make), make.now).dropped_sites] == list(SITES[:3])


def test_nobody_left_is_not_named(make: Make) -> None:
    ended = over(observe(make, {s: {"Consented": "False:PolicyRefused"} for s in SITES}))
    assert ended is not None
    assert ended.message.startswith("0 of 5 sites left, quorum is 3: site-a (Consented: ")


def test_too_few_verified_updates_fail_the_round(make: Make) -> None:
    bad = {s: {**DONE, "Verified": "False:NormExceeded"} for s in SITES[:3]}
    good = {s: {**DONE, "Verified": "True:Verified"} for s in SITES[3:]}
    ended = over(observe(make, {**bad, **good}, aggregate=aggregate(make, adapter=False), job=make.job("Complete")))
    assert ended is not None
    assert ended.reason == Reason.QUORUM_NOT_REACHED
    assert "2 updates verified, quorum is 3" in ended.message


def test_more_rejections_than_the_budget_hold_the_round_until_somebody_approves(make: Make) -> None:
    bad = {s: {**DONE, "Verified": "False:NormExceeded"} for s in SITES[:2]}
    good = {s: {**DONE, "Verified": "True:Verified"} for s in SITES[2:]}
    message = "2 updates were rejected, aggregation.maxFaultySites is 1."
    made = aggregate(make, reason="HeldForApproval", message=message, rejected=2)
    seen = observe(make, {**bad, **good}, aggregate=made)
    assert next_step(seen) is Step.REST
    assert over(seen) is None
    assert wake(seen, make.now) is None
    status = describe(seen, contract_status(make), make.now)
    assert status.phase == "Held"
    for type_, holds in (("Ready", "False"), ("Stalled", "True"), ("Aggregated", "False")):
        found = condition(status.conditions, type_)
        assert (found.status.value, found.reason) == (holds, "HeldForApproval")
        assert found.message == f"{message} Set spec.approveHeld to true to propose the candidate nevertheless."

    approved = replace(seen, round=make.round(approveHeld=True))
    assert next_step(approved) is Step.PROPOSE
    status = describe(approved, contract_status(make), make.now)
    assert condition(status.conditions, "Aggregated").status.value == "True"
    assert "against 0 more faults; rejected: site-a, site-b" in condition(status.conditions, "Aggregated").message
    assert find(status.conditions, ConditionType.STALLED) is None


@pytest.mark.parametrize(
    ("sites", "faulty", "says"),
    [(4, 1, None), (3, 1, "f/(n - 2f) = 1.0"), (5, 2, "f/(n - 2f) = 2.0"), (8, 3, "f/(n - 2f) = 1.5")],
)
def test_a_round_that_can_promise_little_says_so(make: Make, sites: int, faulty: int, says: str | None) -> None:
    """Engine review, finding F14: n = 2f + 1 was admitted without a word."""
    contract = make.contract(*(f"site-{number}" for number in range(sites)))
    policy = contract.aggregation.model_copy(update={"max_faulty_sites": faulty})
    seen = ObservedRound(make.round(), contract=contract.model_copy(update={"aggregation": policy}))
    found = condition(describe(seen, contract_status(make), make.now).conditions, "SitesSelected").message
    assert found.startswith(f"{sites} sites selected: ")
    assert (says in found) if says is not None else "maxFaultySites" not in found


def test_a_suspicion_is_shown_on_the_round(make: Make) -> None:
    seen = observe(make, dict.fromkeys(SITES, DONE), aggregate=aggregate(make, suspected=["site-d"], rejected=1))
    alarm = condition(describe(seen, contract_status(make), make.now).conditions, "PoisoningAlert")
    assert alarm.is_true
    assert "Suspected of poisoning: site-d" in alarm.message


def test_a_failed_aggregator_runs_again_and_says_why_and_its_last_failure_ends_the_round(make: Make) -> None:
    """Finding 12."""
    handed_in = dict.fromkeys(SITES, DONE)
    assert over(observe(make, handed_in, job=make.job("BackoffLimitExceeded"))) is None
    again = AggregationStatus.model_validate({"request": make.ref, "run": 2, "retryTime": make.now})
    killed = Finding(Reason.OOM_KILLED, "Run 1 of 3 failed, and it is run again. Pod p ran out of memory.")
    seen = observe(make, handed_in, job=None, aggregation=again, waits=killed, retry_at=make.now)
    assert next_step(seen) is Step.REST
    assert wake(seen, make.now - timedelta(seconds=30)) == 30
    status = describe(seen, contract_status(make), make.now)
    shown = condition(status.conditions, "Aggregated")
    assert (shown.status.value, shown.reason, shown.message) == ("False", "OOMKilled", killed.message)
    assert status.aggregation == again
    # While it runs again, it is still shown why.
    started = observe(make, handed_in, job=make.job(), aggregation=again, round=make.round(status.wire()))
    assert condition(describe(started, contract_status(make), make.now).conditions, "Aggregated") == shown
    last = replace(started, problem=Finding(Reason.AGGREGATION_FAILED, "The aggregator Job failed, run 3 of 3."))
    ended = over(last)
    assert ended is not None
    assert ended.reason == Reason.AGGREGATION_FAILED
    assert condition(describe(last, contract_status(make), make.now).conditions, "Aggregated").reason != "InProgress"


@pytest.mark.parametrize(
    ("approved", "reason"),
    [
        ("False:Rejected", Reason.NOT_APPROVED),
        ("False:EvaluationDeadlineExceeded", Reason.EVALUATION_DEADLINE_EXCEEDED),
    ],
)
def test_a_candidate_that_is_not_approved_fails_the_round(make: Make, approved: str, reason: Reason) -> None:
    judged = {site: {**DONE, "Verified": "True:Verified"} for site in SITES}
    seen = observe(make, judged, aggregate=aggregate(make), release=make.release("r1-1", 1, Approved=approved))
    ended = over(seen)
    assert ended is not None
    assert ended.reason == reason
    status = describe(seen, contract_status(make), make.now)
    assert condition(status.conditions, "Released").status.value == "False"


def test_a_candidate_without_an_evaluator_is_waited_for_and_not_called_refused(make: Make) -> None:
    judged = {site: {**DONE, "Verified": "True:Verified"} for site in SITES}
    release = make.release("r1-1", 1, Approved="Unknown:NoEvaluator")
    observed = observe(make, judged, aggregate=aggregate(make), release=release)
    assert over(observed) is None
    status = describe(observed, contract_status(make), make.now)
    assert condition(status.conditions, "Evaluated").status.value == "Unknown"
    assert condition(status.conditions, "Evaluated").reason == "NoEvaluator"
    assert find(status.conditions, ConditionType.RELEASED) is None


def test_what_has_ended_stays_ended(make: Make) -> None:
    for value in ("True:Released", "False:QuorumNotReached"):
        round_ = make.round({"conditions": make.conditions(Succeeded=value)})
        assert next_step(ObservedRound(round_)) is Step.REST
        assert wake(ObservedRound(round_), make.now) is None


def test_the_round_wakes_at_the_next_deadline(make: Make) -> None:
    seen = observe(make, {site: {} for site in SITES})
    assert wake(seen, make.now) == 300
    seen = observe(make, {site: {"Consented": "True"} for site in SITES})
    assert wake(seen, make.now) == 3600
    stalled = ObservedRound(make.round(), selection=Finding(Reason.NO_ELIGIBLE_SITE, "none"))
    assert wake(stalled, make.now) == 30


def test_a_stalled_round_says_so_in_every_word_kubectl_reads(make: Make) -> None:
    seen = ObservedRound(make.round(), selection=Finding(Reason.NO_ELIGIBLE_SITE, "Nobody is there."))
    status = describe(seen, None, make.now)
    for type_ in ("Ready", "Stalled", "SitesSelected"):
        assert condition(status.conditions, type_).reason == "NoEligibleSite"
    recovered = ObservedRound(
        make.round({"conditions": [c.wire() for c in status.conditions]}),
        selection=Selection(make.release(), (), make.image),
    )
    after = describe(recovered, None, make.now)
    assert find(after.conditions, ConditionType.STALLED) is None
    assert is_true(after.conditions, ConditionType.RECONCILING)


def test_an_outage_of_the_registry_is_no_stall(make: Make) -> None:
    seen = observe(make, {}, problem=Finding(Reason.REGISTRY_UNAVAILABLE, "It does not answer."))
    status = describe(seen, contract_status(make), make.now)
    assert find(status.conditions, ConditionType.STALLED) is None
    assert condition(status.conditions, "Ready").reason == "RegistryUnavailable"


WORDS = st.sampled_from(["", "True", "False:Training", "False:PolicyRefused", "False:OOMKilled", "False:NormExceeded"])
STATES = st.fixed_dictionaries(
    dict.fromkeys(("Consented", "AttestationValid", "Staged", "Trained", "Submitted", "Verified"), WORDS)
)


@given(
    states=st.lists(st.none() | STATES, min_size=5, max_size=5),
    late=st.integers(0, 5000),
    suspend=st.booleans(),
    job=st.sampled_from([None, "", "Complete", "DeadlineExceeded"]),
)
def test_whatever_the_sites_do_there_is_one_step_and_one_consistent_status(
    make: Make, states: list[dict[str, str] | None], late: int, suspend: bool, job: str | None
) -> None:
    updates = {
        site: {k: v for k, v in state.items() if v}
        for site, state in zip(SITES, states, strict=True)
        if state is not None
    }
    facts: dict[str, Any] = {"job": make.job(job)} if job is not None else {}
    seen = observe(make, updates, after=late, round=make.round(suspend=suspend), **facts)
    step, ended = next_step(seen), over(seen)
    status = describe(seen, contract_status(make), make.now)
    found = counts(seen.slots)
    # Every site is exactly one of: out, handed in, waited for.
    assert found.out + sum(s.submitted for s in seen.slots) + sum(s.waited_for for s in seen.slots) == 5
    assert (ended is None) or step is Step.REST
    assert not (suspend and step is not Step.REST)
    abnormal = [
        t
        for t in (ConditionType.STALLED, ConditionType.RECONCILING, ConditionType.SUSPENDED)
        if is_true(status.conditions, t)
    ]
    assert len(abnormal) == 1
    assert step is not Step.AGGREGATE or sum(s.submitted for s in seen.slots) >= 3
    # The same facts give the same status, and a status once written is not written again.
    again = make.round({"conditions": [c.wire() for c in status.conditions]}, suspend=suspend)
    if ended is None:
        after = describe(replace(seen, round=again), contract_status(make), make.now)
        assert sorted(after.conditions, key=lambda c: c.type) == sorted(status.conditions, key=lambda c: c.type)
