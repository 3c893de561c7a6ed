"""Decisions of the operator about one Update, one Release and one copy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from concordat.api import ConditionSet, ConditionType, Reason
from concordat.api.round_status import Attempt
from concordat_operator.finding import Finding
from concordat_operator.releases.plan import (
    CopyStep,
    decided,
    evaluators_copy,
    next_copy_step,
    no_longer_wanted,
    ours,
    rollout,
)
from concordat_operator.releases.plan import Step as ReleaseStep
from concordat_operator.releases.plan import next_step as release_step
from concordat_operator.rounds.select import evaluator
from concordat_operator.updates.plan import Step, expired, next_step, show_ready
from tests.support.hub import Make
from tests.support.presence import condition

READY = {"Consented": "True", "Staged": "True", "AttestationValid": "True"}


@pytest.mark.parametrize(
    ("conditions", "job", "step"),
    [
        ({}, None, Step.REST),
        ({"Consented": "False:PolicyRefused"}, None, Step.REST),
        ({"Consented": "True"}, None, Step.ATTEST),
        ({"Consented": "True", "AttestationValid": "True"}, None, Step.REST),
        ({"Consented": "True", "Staged": "True", "AttestationValid": "False:KeyPossessionNotProved"}, None, Step.REST),
        (READY, None, Step.LAUNCH),
        (READY, "", Step.REPORT),
        ({**READY, "Trained": "False:Training"}, "", Step.REST),
        # The agent tells the end of its Job with its answer, in one write, unless it takes long.
        ({**READY, "Trained": "False:Training"}, "Complete", Step.REST),
        ({**READY, "Trained": "False:Training", "Submitted": "True"}, "Complete", Step.REPORT),
        ({**READY, "Trained": "False:Training"}, "DeadlineExceeded", Step.REPORT),
        ({**READY, "Trained": "False:Training"}, None, Step.LAUNCH),
        ({**READY, "Trained": "True"}, "Complete", Step.REST),
        # Finding 11: a Job that is deleted before the agent read its result is launched again, and not after that.
        ({**READY, "Trained": "True"}, None, Step.LAUNCH),
        ({**READY, "Trained": "True", "Submitted": "True"}, None, Step.REST),
        ({**READY, "Trained": "False:OOMKilled"}, None, Step.REST),
        # Finding 12: a used-up quota is waited for.
        ({**READY, "Trained": "False:QuotaExceeded"}, None, Step.LAUNCH),
        # Findings 14 and 25: what is pending is looked at, in whatever words.
        ({**READY, "Trained": "False:Unschedulable"}, "", Step.REPORT),
        ({**READY, "Trained": "False:NewerThanThisProgram"}, None, Step.REST),
    ],
)
def test_an_update_is_attested_launched_and_reported(
    make: Make, conditions: dict[str, str], job: str | None, step: Step
) -> None:
    found = None if job is None else make.job(job)
    assert next_step(make.update("site-a", conditions), make.round(), found, make.now) is step


@pytest.mark.parametrize(
    "round_",
    [
        {"suspend": True},
        {"status": {"conditions": "Succeeded=False:QuorumNotReached"}},
        {"metadata": {"deletionTimestamp": "2026-11-24T12:00:00Z"}},
    ],
)
def test_no_job_is_launched_for_a_round_that_is_held_over_or_deleted(make: Make, round_: dict[str, Any]) -> None:
    if "status" in round_:
        round_ = {"status": {"conditions": make.conditions(Succeeded="False:QuorumNotReached")}}
    assert next_step(make.update("site-a", READY), make.round(**round_), None, make.now) is Step.REST


@pytest.mark.parametrize("conditions", [{}, READY, {**READY, "Trained": "True"}])
def test_an_update_whose_round_is_gone_is_removed(make: Make, conditions: dict[str, str]) -> None:
    """Finding 33: nobody deleted it, and nobody stopped its Job."""
    assert next_step(make.update("site-a", conditions), None, None, make.now) is Step.REMOVE
    assert next_step(make.update("site-a", conditions, deleted=True), None, None, make.now) is Step.REST


def test_no_job_is_launched_past_the_deadline_or_for_a_deleted_update(make: Make) -> None:
    late = make.now + timedelta(hours=2)
    assert next_step(make.update("site-a", READY), make.round(), None, late) is Step.REST
    assert next_step(make.update("site-a", READY, deleted=True), make.round(), None, make.now) is Step.REST


def test_a_job_that_outlives_its_round_is_stopped(make: Make) -> None:
    over = make.round({"conditions": make.conditions(Succeeded="False:QuorumNotReached")})
    update = make.update("site-a", {**READY, "Trained": "False:Training"})
    assert next_step(update, over, make.job(), make.now) is Step.STOP
    # Killed between the two writes, the operator goes on where the Job is gone already.
    assert next_step(update, over, None, make.now) is Step.STOP
    late = make.now + timedelta(minutes=20)
    assert next_step(update, over, make.job("Complete"), late) is Step.REPORT
    stopped = make.update("site-a", {**READY, "Trained": "False:Stopped"})
    assert next_step(stopped, over, None, make.now) is Step.REST
    assert next_step(make.update("site-a", READY), over, None, make.now) is Step.REST


def candidate(make: Make, approved: str = "Unknown:Evaluating", deadline: int = 600) -> Any:
    release = make.release("r1-1", 1, Approved=approved)
    spec = release.spec.model_copy(update={"deadline": make.now + timedelta(seconds=deadline)})
    return release.model_copy(update={"spec": spec})


def test_a_candidate_is_asked_about_once_and_signed_when_answered(make: Make) -> None:
    judge = evaluator("digits", make.sites(), make.members())
    assert judge is not None
    release = candidate(make)
    assert release_step(release, None, judge, make.now) is ReleaseStep.ASK
    assert release_step(release, None, None, make.now) is ReleaseStep.REST
    asked = make.release("r1-1", 1, "evaluator", Staged="True")
    assert release_step(release, asked, judge, make.now) is ReleaseStep.REST
    for verdict in ("True:Approved", "False:Rejected"):
        answered = make.release("r1-1", 1, "evaluator", Evaluated=verdict)
        assert release_step(release, answered, judge, make.now) is ReleaseStep.SIGN
    late = make.now + timedelta(hours=1)
    assert release_step(release, asked, judge, late) is ReleaseStep.EXPIRE
    for approved in ("True:Approved", "False:Rejected", "False:EvaluationDeadlineExceeded"):
        assert release_step(candidate(make, approved), answered, judge, make.now) is ReleaseStep.REST


def test_the_start_of_a_federation_is_checked_until_its_artifacts_are_there(make: Make) -> None:
    for approved, step in (("Unknown", ReleaseStep.CHECK), ("True:Genesis", ReleaseStep.REST)):
        assert release_step(make.release(Approved=approved), None, None, make.now) is step
    missing = make.release(Approved="False:ArtifactUnreadable")
    assert not decided(missing)
    assert release_step(missing, None, None, make.now) is ReleaseStep.CHECK


def test_a_copy_that_cannot_be_judged_is_no_reason_to_wait(make: Make) -> None:
    refused = make.release("r1-1", 1, "evaluator", Staged="False:LineageInvalid")
    assert release_step(candidate(make), refused, None, make.now) is ReleaseStep.SIGN
    unrun = make.release("r1-1", 1, "site-a", Staged="True", Validated="False:JobNotAllowed")
    failed = make.release("r1-1", 1, "site-b", Staged="True", Validated="False:ValidationFailed")
    open_ = make.release("r1-1", 1, "site-c", Staged="True", Validated="Unknown:Validating")
    again = make.release("r1-1", 1, "site-d", Staged="True", Validated="Unknown:OOMKilled")
    found = rollout([refused, unrun, failed, open_, again])
    assert (found.offered, found.adopted, found.rejected) == (5, 0, 3)


def test_the_evaluators_copy_is_told_from_the_sites(make: Make) -> None:
    copies = [make.release("r1-1", 1, space, Staged="True") for space in ("site-a", "evaluator")]
    found = evaluators_copy(copies, {"evaluator"})
    assert found is not None
    assert found.metadata.namespace == "evaluator"


@pytest.mark.parametrize(
    ("conditions", "job", "step"),
    [
        ({"Staged": "False:LineageInvalid"}, None, CopyStep.REPORT),
        ({"Staged": "True", "Validated": "False:JobNotAllowed"}, None, CopyStep.REPORT),
        ({"Staged": "True"}, None, CopyStep.LAUNCH),
        ({"Staged": "True"}, "", CopyStep.REPORT),
        ({"Staged": "True", "Adopted": "True:Adopted"}, None, CopyStep.REPORT),
        # Finding 11: a Job that is deleted before the agent has decided is launched again.
        ({"Staged": "True", "Validated": "Unknown:Validating"}, None, CopyStep.LAUNCH),
        ({"Staged": "True", "Validated": "True"}, None, CopyStep.LAUNCH),
        ({"Staged": "True", "Validated": "True", "Adopted": "True:Adopted"}, None, CopyStep.REPORT),
        # Finding 12: a used-up quota is waited for.
        ({"Staged": "True", "Validated": "Unknown:QuotaExceeded"}, None, CopyStep.LAUNCH),
    ],
)
def test_a_copy_gets_its_job_once(make: Make, conditions: dict[str, str], job: str | None, step: CopyStep) -> None:
    copy = make.release("r1-1", 1, "site-a", **conditions)
    assert next_copy_step(copy, None if job is None else make.job(job), make.now) is step


def test_a_job_that_failed_is_removed_and_run_again_after_a_while(make: Make) -> None:
    """Finding 12."""
    copy = make.release("r1-1", 1, "site-a", Staged="True", Validated="Unknown:OOMKilled")
    attempt = Attempt(number=2, retry_time=make.now + timedelta(seconds=30), failed_job="j")
    copy = copy.model_copy(update={"status": copy.status.model_copy(update={"attempt": attempt})})
    failed, other = make.job("BackoffLimitExceeded"), make.job("BackoffLimitExceeded")
    other["metadata"]["uid"] = "the second"
    assert next_copy_step(copy, failed, make.now) is CopyStep.REMOVE
    assert next_copy_step(copy, None, make.now) is CopyStep.REPORT
    assert next_copy_step(copy, None, make.now + timedelta(seconds=30)) is CopyStep.LAUNCH
    assert next_copy_step(copy, other, make.now) is CopyStep.REPORT


def test_an_evaluator_that_is_late_or_superseded_is_stopped(make: Make) -> None:
    """Finding 37."""
    release = candidate(make)
    copy = make.release("r1-1", 1, "evaluator", Staged="True", Validated="Unknown:Validating")
    copy = copy.model_copy(update={"spec": release.spec})
    late = make.now + timedelta(hours=1)
    assert not no_longer_wanted(copy, release, make.now)
    for original, now in ((release, late), (candidate(make, "False:Rejected"), make.now), (None, make.now)):
        assert no_longer_wanted(copy, original, now)
    for job in (make.job(), None):
        assert next_copy_step(copy, job, late, unwanted=True) is CopyStep.STOP
    stopped = make.release("r1-1", 1, "evaluator", Staged="True", Validated="False:Stopped")
    assert next_copy_step(stopped, None, late, unwanted=True) is CopyStep.REPORT
    assert next_copy_step(stopped, make.job(), late, unwanted=True) is CopyStep.STOP
    assert release_step(release, stopped, None, late) is ReleaseStep.EXPIRE
    # A site's own copy has no deadline.
    assert not no_longer_wanted(make.release("r1-1", 1, "site-a"), None, late)


def test_the_releases_of_another_hub_are_left_alone(make: Make) -> None:
    """Finding 34."""
    assert ours(make.release("r1-1", 1, "site-a"), "concordat")
    assert not ours(make.release("r1-1", 1), "concordat")
    assert not ours(make.release("digits-0", 0, "other-hub"), "concordat")
    assert not ours(make.release("r1-1", 1, "site-a"), "other-hub")


@pytest.mark.parametrize(
    ("conditions", "ended", "ready", "stalled"),
    [
        ({}, False, "False:InProgress", False),
        ({"Consented": "False:PolicyRefused"}, False, "False:PolicyRefused", True),
        ({**READY, "Trained": "False:Unschedulable"}, False, "False:InProgress", False),
        ({**READY, "Trained": "False:OOMKilled"}, False, "False:OOMKilled", True),
        ({**READY, "Trained": "True", "Submitted": "True"}, False, "False:InProgress", False),
        ({**READY, "Trained": "True", "Submitted": "True", "Verified": "True:Verified"}, False, "True:Verified", False),
        ({**READY, "Submitted": "True", "Verified": "False:NormExceeded"}, True, "False:NormExceeded", True),
        ({**READY, "Trained": "False:Stopped"}, True, "True:Stopped", False),
        ({}, True, "False:DeadlineExceeded", True),
    ],
)
def test_an_update_is_ready_when_its_site_is_done_and_stalled_when_it_is_out(
    make: Make, conditions: dict[str, str], ended: bool, ready: str, stalled: bool
) -> None:
    """Finding 35."""
    update = make.update("site-a", conditions)
    over = {"conditions": make.conditions(Succeeded="True:Released")} if ended else {}
    shown, now = ConditionSet(update.status.conditions, 1, make.now), make.now + timedelta(minutes=6)
    show_ready(shown, update, make.round(over), now)
    found = condition(shown.list(), "Ready")
    assert f"{found.status.value}:{found.reason}" == ready
    assert shown.is_true(ConditionType.STALLED) is stalled


def test_a_site_without_a_job_at_the_deadline_is_told_why(make: Make) -> None:
    """Findings 12, 14 and 23."""
    update, late = make.update("site-a", {**READY, "Trained": "False:QuotaExceeded"}), make.now + timedelta(hours=2)
    assert next_step(update, make.round(), None, late) is Step.EXPIRE
    assert expired(update) == Finding(
        Reason.DEADLINE_EXCEEDED,
        "There was no training Job at the submission deadline, 2026-11-24 13:00Z. Trained is False.",
    )
