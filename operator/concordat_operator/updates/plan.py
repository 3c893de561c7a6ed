"""An Update, as the hub attends to it: attest, launch the training Job, show how it went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from concordat.api import (
    NOT_STARTED_REASONS,
    ConditionSet,
    ConditionType,
    FederationRound,
    Reason,
    Update,
    find,
    is_true,
)
from concordat.jobs import answers_soon, look_after, outcome
from concordat_operator.finding import Finding
from concordat_operator.rounds.slots import STEPS
from concordat_operator.text import until

CONDITIONS = (
    ConditionType.ATTESTATION_VALID,
    ConditionType.TRAINED,
    ConditionType.READY,
    ConditionType.STALLED,
)
"""The conditions this part of the operator owns."""


class Step(StrEnum):
    """The operator's next step for one Update."""

    REST = "rest"
    """Wait for the agent, the Job or the round."""
    ATTEST = "attest"
    """See whether the consent is signed with the key named in the contract."""
    LAUNCH = "launch"
    """Start the training Job."""
    REPORT = "report"
    """Show how far the Job is."""
    STOP = "stop"
    """The round goes on, or has ended, without this site: stop its Job."""
    REMOVE = "remove"
    """There is no such round: nobody else would stop its Job and delete it."""
    EXPIRE = "expire"
    """The submission deadline has passed before there was a Job."""


def next_step(update: Update, round_: FederationRound | None, job: Mapping[str, Any] | None, now: datetime) -> Step:
    """Return the step that is due."""
    conditions = update.status.conditions
    if update.metadata.deletion_timestamp is not None:
        return Step.REST
    if round_ is None:
        return Step.REMOVE
    if not is_true(conditions, ConditionType.CONSENTED):
        return Step.REST
    if find(conditions, ConditionType.ATTESTATION_VALID) is None:
        return Step.ATTEST
    trained = find(conditions, ConditionType.TRAINED)
    if trained is not None and not trained.is_pending:
        # The agent reads the result with the Job that left it; while it has not, a deleted Job runs again.
        unread = trained.is_true and job is None and find(conditions, ConditionType.SUBMITTED) is None
        return Step.LAUNCH if unread and _may_launch(update, round_, now) else Step.REST
    if trained is not None and job is None and now >= update.submission_deadline:
        return Step.EXPIRE
    job_outcome = outcome(job)
    if trained is not None and job_outcome is None and _closed(round_):
        return Step.STOP
    if answers_soon(job, now) is not None and find(conditions, ConditionType.SUBMITTED) is None:
        return Step.REST  # The agent says so with what it makes of the result.
    if job is not None:
        news = trained is None or job_outcome is not None or _changed(trained.reason, job, now)
        return Step.REPORT if news else Step.REST
    return Step.LAUNCH if _may_launch(update, round_, now) else Step.REST


def expired(update: Update) -> Finding:
    """Return why a site whose Job could not be made is out."""
    trained = find(update.status.conditions, ConditionType.TRAINED)
    why = f" {trained.message}" if trained is not None and trained.reason in NOT_STARTED_REASONS else ""
    deadline = until(update.submission_deadline)
    return Finding(Reason.DEADLINE_EXCEEDED, f"There was no training Job at the submission deadline, {deadline}.{why}")


def show_ready(conditions: ConditionSet, update: Update, round_: FederationRound | None, now: datetime) -> None:
    """Set Ready and Stalled from the other conditions: Ready once the site's part is done, Stalled when it is out."""
    conditions.drop(ConditionType.STALLED)
    for step in STEPS:
        condition = conditions.get(step)
        if condition is None or not condition.is_false or condition.is_pending or condition.reason == Reason.STOPPED:
            continue
        return _show_out(conditions, condition.reason, condition.message)
    verified = conditions.get(ConditionType.VERIFIED)
    if verified is not None and verified.is_true:
        conditions.set(ConditionType.READY, True, verified.reason, "The site's part in the round is done.")
    elif round_ is not None and round_.ended and _silent(update, now):
        _show_out(conditions, Reason.DEADLINE_EXCEEDED, "The site did not answer in time; the round ended without it.")
    elif round_ is not None and round_.ended:
        conditions.set(ConditionType.READY, True, Reason.STOPPED, "The round has ended without this update.")
    else:
        conditions.set(
            ConditionType.READY, False, Reason.IN_PROGRESS, "The site's part goes on: the other conditions say how far."
        )


def _show_out(conditions: ConditionSet, reason: str, message: str) -> None:
    conditions.set(ConditionType.STALLED, True, reason, message)
    conditions.set(ConditionType.READY, False, reason, message)


def _silent(update: Update, now: datetime) -> bool:
    conditions = update.status.conditions
    return (find(conditions, ConditionType.CONSENTED) is None and now >= update.consent_deadline) or (
        find(conditions, ConditionType.SUBMITTED) is None and now >= update.submission_deadline
    )


def _may_launch(update: Update, round_: FederationRound, now: datetime) -> bool:
    conditions = update.status.conditions
    ready = is_true(conditions, ConditionType.STAGED) and is_true(conditions, ConditionType.ATTESTATION_VALID)
    held = round_.spec.suspend or _closed(round_) or round_.metadata.deletion_timestamp is not None
    return ready and not held and now < update.submission_deadline


def _changed(reason: str, job: Mapping[str, Any], now: datetime) -> bool:
    """Return whether there may be news of a Job that has not ended, of which `reason` is shown."""
    after = look_after(job, now)
    return reason != Reason.TRAINING if after is None else not after


def _closed(round_: FederationRound) -> bool:
    """Return whether the updates are collected: whoever is still at work is out, what it makes would count nowhere."""
    return round_.ended or is_true(round_.status.conditions, ConditionType.UPDATES_COLLECTED)
