"""A Release: the hub's own, from candidate to approval; and a namespace's copy, whose Job the operator launches."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from concordat.api import (
    PENDING_REASONS,
    ConditionType,
    Reason,
    Release,
    Site,
    find,
    is_true,
)
from concordat.api.release import ReleaseSpec, Rollout, answer
from concordat.api.types import ArtifactRef
from concordat.jobs import outcome

UNDECIDED = PENDING_REASONS | {Reason.NO_EVALUATOR, Reason.ARTIFACT_UNREADABLE}
"""Reasons of Approved that a later pass replaces: the pending ones, and failures that people or time put right."""

COPY_CONDITIONS = (ConditionType.VALIDATED, ConditionType.READY, ConditionType.STALLED)
"""The conditions of a copy that the operator writes; the agent writes the last two with its answer."""


class Step(StrEnum):
    """The operator's next step for a Release of the hub."""

    REST = "rest"
    """Decided, or waiting for the evaluator."""
    CHECK = "check"
    """The start of a federation: see that its artifacts are there."""
    ASK = "ask"
    """Give the evaluator its copy."""
    SIGN = "sign"
    """Verify the evaluator's verdict; sign the release if it passed."""
    SUPERSEDE = "supersede"
    """Another release was approved since, and this candidate does not build on it."""
    EXPIRE = "expire"
    """The evaluator did not answer in time."""


class CopyStep(StrEnum):
    """The operator's next step for a copy."""

    REST = "rest"
    """Wait for the agent or the Job."""
    LAUNCH = "launch"
    """Start the evaluation Job."""
    REMOVE = "remove"
    """Remove the Job that failed; it is run again."""
    STOP = "stop"
    """Nobody waits for the evaluator's answer any more: stop its Job."""
    REPORT = "report"
    """Show how far Job and decision are."""


def next_step(
    release: Release, copy: Release | None, evaluator: Site | None, now: datetime, newer: Release | None = None
) -> Step:
    """Return the step due for a Release of the hub.

    `copy` is the evaluator's copy, `evaluator` the one to ask if there is none; `newer` was approved since the
    candidate was made.
    """
    if release.metadata.deletion_timestamp is not None or decided(release):
        return Step.REST
    if release.spec.sequence == 0:
        return Step.CHECK
    if newer is not None:
        return Step.SUPERSEDE
    reply = answer(copy.status.conditions) if copy is not None else None
    if reply is not None and reply.reason != Reason.STOPPED:
        return Step.SIGN
    if release.spec.deadline is not None and now >= release.spec.deadline:
        return Step.EXPIRE
    return Step.ASK if copy is None and evaluator is not None else Step.REST


def decided(release: Release) -> bool:
    """Return whether the hub has approved or rejected the release for good."""
    approved = find(release.status.conditions, ConditionType.APPROVED)
    return approved is not None and (approved.is_true or (approved.is_false and approved.reason not in UNDECIDED))


def superseding(releases: Sequence[Release], federation: str, sequence: int, since: datetime) -> Release | None:
    """Return a release of the federation, of a higher sequence, that was approved at or after `since`; None: none."""
    newer = [
        r
        for r in releases
        if r.spec.federation == federation
        and r.spec.sequence > sequence
        and (approved := find(r.status.conditions, ConditionType.APPROVED)) is not None
        and approved.is_true
        and approved.last_transition_time >= since
    ]
    return min(newer, key=lambda r: (r.spec.sequence, r.metadata.name), default=None)


def ours(release: Release, namespace: str) -> bool:
    """Return whether a Release is a copy of one of this hub, which is in `namespace`; another hub's is left alone."""
    made_by = release.spec.round_ref
    return made_by is not None and made_by.namespace == namespace != release.metadata.namespace


def no_longer_wanted(copy: Release, original: Release | None, now: datetime) -> bool:
    """Return whether an evaluator's answer would come too late; `original` is the hub's release."""
    if copy.spec.deadline is None:
        return False
    return now >= copy.spec.deadline or original is None or decided(original)


def next_copy_step(copy: Release, job: Mapping[str, Any] | None, now: datetime, *, unwanted: bool = False) -> CopyStep:
    """Return the step due for a copy. `unwanted`: nobody waits for its answer any more."""
    conditions, attempt = copy.status.conditions, copy.status.attempt
    if copy.metadata.deletion_timestamp is not None:
        return CopyStep.REST
    if answer(conditions) is not None:
        # The Job of a copy that was stopped may have been made just then.
        stray = unwanted and job is not None and outcome(job) is None
        return CopyStep.STOP if stray else CopyStep.REPORT
    if unwanted:
        return CopyStep.STOP
    if job is not None:
        return CopyStep.REMOVE if job["metadata"].get("uid") == failed_job(copy) else CopyStep.REPORT
    waits = attempt is not None and now < attempt.retry_time
    # Also where it was measured before: the agent decides with the Job at hand.
    return CopyStep.LAUNCH if is_true(conditions, ConditionType.STAGED) and not waits else CopyStep.REPORT


def failed_job(copy: Release) -> str | None:
    """Return the uid of the Job whose failure is dealt with: it is run again."""
    return copy.status.attempt.failed_job if copy.status.attempt is not None else None


def evaluators_copy(copies: Sequence[Release], judges: Container[str]) -> Release | None:
    """Return the copy in the namespace of one of the evaluators; the first by name if there are several."""
    return next((c for c in sorted(copies, key=lambda c: c.key) if c.metadata.namespace in judges), None)


def copy_spec(release: Release, lineage: ArtifactRef | None, *, deadline: bool) -> ReleaseSpec:
    """Return the spec of a copy: what is released, with the lineage that its reader verifies."""
    return release.spec.model_copy(update={"lineage": lineage, "deadline": release.spec.deadline if deadline else None})


def rollout(copies: Sequence[Release]) -> Rollout:
    """Return the sites' decisions, counted; `copies` are the sites', not the evaluator's."""
    answers = [condition for copy in copies if (condition := answer(copy.status.conditions)) is not None]
    evaluations = [copy.status.decision.evaluation for copy in copies if copy.status.decision is not None]
    regressions = [evaluation.parent_ppm - evaluation.candidate_ppm for evaluation in evaluations]
    return Rollout(
        offered=len(copies),
        adopted=sum(condition.type == ConditionType.ADOPTED and condition.is_true for condition in answers),
        rejected=sum(condition.is_false for condition in answers),
        worst_regression_ppm=max(regressions, default=None),
        mean_quality_ppm=sum(f.candidate_ppm for f in evaluations) // len(evaluations) if evaluations else None,
    )
