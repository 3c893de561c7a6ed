"""A namespace's copy of a Release: launch the evaluation Job after the agent staged it, show how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concordat.api import ConditionSet, ConditionType, Reason, Release, Site, find
from concordat.api.release import ReleaseStatus, answer, show_answer
from concordat.api.round_status import Attempt
from concordat.controller import JOB, Result
from concordat.jobs import JobError, answers_soon, evaluation_job, failure, outcome
from concordat_operator import metrics
from concordat_operator.child_jobs import (
    ATTEMPTS,
    RETRY_SECONDS,
    backoff_seconds,
    not_running,
    own,
    requeue_seconds,
    show,
    start,
)
from concordat_operator.create import later
from concordat_operator.finding import Finding
from concordat_operator.hub import Hub
from concordat_operator.releases.plan import (
    COPY_CONDITIONS,
    CopyStep,
    failed_job,
    next_copy_step,
    no_longer_wanted,
)


@dataclass(frozen=True)
class Measurement:
    """How far the evaluation Job is: what becomes of condition Validated; None leaves it."""

    holds: bool | None
    finding: Finding
    attempt: Attempt | None = None


class CopyReconciler:
    """Attends to the copies of Releases in the namespaces of sites and evaluators."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, copy: Release) -> Result:
        """Do the next step of one copy."""
        hub, now = self._hub, self._hub.clock.now()
        job = hub.cache.get(JOB, *copy.key)
        original = hub.cache.get(Release, hub.settings.namespace, copy.metadata.name)
        step = next_copy_step(copy, job, now, unwanted=no_longer_wanted(copy, original, now))
        measured: Measurement | None = None
        if step is CopyStep.REST:
            return Result()
        if step is CopyStep.LAUNCH:
            finding = await self._launch(copy)
            if finding is not None:
                measured = Measurement(False if finding.reason == Reason.JOB_NOT_ALLOWED else None, finding)
        elif step in (CopyStep.STOP, CopyStep.REMOVE) and job is not None:
            await hub.cluster.delete(JOB, *copy.key, job["metadata"]["uid"])
        elif step is CopyStep.REPORT and job is not None:
            measured = await self._progress(copy, job)
        if step is CopyStep.STOP:
            stopped = "No answer is wanted any more: the deadline has passed, or the release is decided."
            measured = Measurement(False, Finding(Reason.STOPPED, stopped))
        if not _unremarkable(copy, step, measured, job, now):
            await self._write(copy, measured)
        return Result(_requeue_after(copy, step, job, now))

    async def _launch(self, copy: Release) -> Finding | None:
        """Create the Job. Returns why there is none."""
        hub, namespace = self._hub, copy.metadata.namespace
        site = hub.cache.get(Site, namespace, namespace)
        if site is None:
            return Finding(Reason.SITE_NOT_FOUND, f"Site {namespace} is gone, so no evaluation Job can be made for it.")
        try:
            job = evaluation_job(copy, site)
        except JobError as error:
            return Finding(Reason.JOB_NOT_ALLOWED, f"The evaluation Job could not be created: {error}.")
        again = find(copy.status.conditions, ConditionType.VALIDATED) is not None
        finding = await start(hub, job, again=again)
        if finding is None:
            metrics.JOBS.labels("evaluate").inc()
        return finding

    async def _write(self, copy: Release, measured: Measurement | None) -> None:
        hub, generation = self._hub, copy.metadata.generation
        conditions = ConditionSet(copy.status.conditions, generation, hub.clock.now())
        attempt = copy.status.attempt
        if measured is not None:
            finding, attempt = measured.finding, measured.attempt or attempt
            conditions.set(ConditionType.VALIDATED, measured.holds, finding.reason, finding.message)
        show_answer(conditions, answer(conditions.list()))
        mine = [condition for condition in conditions.list() if condition.type in COPY_CONDITIONS]
        status = ReleaseStatus(observed_generation=generation, conditions=mine, attempt=attempt)
        await show(hub, copy, status, COPY_CONDITIONS, until=copy.spec.deadline)

    async def _progress(self, copy: Release, job: Mapping[str, Any]) -> Measurement | None:
        """Return how far the Job is; None if nothing is new."""
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        shown, job_outcome = find(copy.status.conditions, ConditionType.VALIDATED), outcome(job)
        if shown is not None and shown.is_false:
            return None  # Why it failed is known once, while its pods are there.
        if job_outcome is None:
            if (waits := await not_running(self._hub, job)) is not None:
                return Measurement(None, waits)
            if shown is not None and failed_job(copy) and not shown.is_waiting:
                return None  # It runs again, and is still shown why.
            message = f"The evaluation Job runs: kubectl logs job/{name} -n {namespace}."
            return Measurement(None, Finding(Reason.VALIDATING, message))
        if job_outcome.completed is not None:
            if shown is None and answer(copy.status.conditions) is not None:
                return None  # The agent's answer says it.
            return Measurement(True, Finding(Reason.VALIDATED, "The evaluation Job measured the release."))
        cause = failure(job, await own(self._hub, job), shown)
        number = copy.status.attempt.number if copy.status.attempt is not None else 1
        if cause.final or number >= ATTEMPTS:
            return Measurement(False, Finding(cause.reason, cause.message))
        again = Attempt(
            number=number + 1,
            retry_time=later(self._hub.clock.now(), backoff_seconds(number)),
            failed_job=job["metadata"]["uid"],
        )
        message = f"Run {number} of {ATTEMPTS} failed, and it is run again. {cause.message}"
        return Measurement(None, Finding(cause.reason, message), again)


def _unremarkable(
    copy: Release, step: CopyStep, measured: Measurement | None, job: Mapping[str, Any] | None, now: datetime
) -> bool:
    """Return whether there is nothing to write of a copy on which nothing is shown yet.

    At a thousand sites each write counts. A Job says itself that it runs, and after its end the agent decides within
    seconds: its one write then tells both.
    """
    conditions = copy.status.conditions
    if step is CopyStep.LAUNCH and measured is None:
        return True
    shown = any(find(conditions, type_) is not None for type_ in COPY_CONDITIONS)
    if step is CopyStep.STOP or shown or answer(conditions) is not None:
        return False
    if measured is None or measured.finding.reason == Reason.VALIDATING:
        return True
    return measured.holds is True and answers_soon(job, now) is not None


def _requeue_after(copy: Release, step: CopyStep, job: Mapping[str, Any] | None, now: datetime) -> float | None:
    """Return in how many seconds to look again though nothing happens; None: never."""
    if answer(copy.status.conditions) is not None:
        return None
    waits: list[float] = []
    if copy.spec.deadline is not None:
        waits.append(max((copy.spec.deadline - now).total_seconds(), 0.0))
    if step is CopyStep.LAUNCH:
        waits.append(RETRY_SECONDS)  # Where the Job was made, its first event comes earlier.
    elif copy.status.attempt is not None and copy.status.attempt.retry_time > now:
        waits.append((copy.status.attempt.retry_time - now).total_seconds())
    elif outcome(job) is None and (look := requeue_seconds(job, now)) is not None:
        waits.append(look)
    elif (left := answers_soon(job, now)) is not None:
        waits.append(left)
    return min(waits, default=None)
