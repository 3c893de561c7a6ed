"""A namespace's copy of a Release: launch the evaluation Job after the agent staged it, show how it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from concordat.api import ConditionSet, ConditionType, Reason, Release, Site
from concordat.api.release import ReleaseStatus
from concordat.controller import JOB, Forbidden, Invalid, Result, write_status
from concordat.jobs import JobError, evaluation_job, failure, outcome
from concordat_operator import metrics
from concordat_operator.create import create_job
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.releases.plan import COPY_CONDITIONS, CopyStep, answer, next_copy_step
from concordat_operator.rounds.select import Finding


class CopyReconciler:
    """Attends to the copies of Releases in the namespaces of sites and evaluators."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, copy: Release) -> Result:
        """Do the next step of one copy."""
        hub = self._hub
        job = hub.cache.get(JOB, *copy.key)
        step = next_copy_step(copy, job)
        if step is CopyStep.LAUNCH:
            await self._launch(copy)
        elif step is CopyStep.REPORT:
            await self._write(copy, await self._progress(job) if job is not None else None)
        return Result()

    async def _launch(self, copy: Release) -> None:
        hub, namespace = self._hub, copy.metadata.namespace
        site = hub.cache.get(Site, namespace, namespace)
        if site is None:
            return
        try:
            job = evaluation_job(copy, site)
            await create_job(hub.cluster, job)
        except (JobError, Forbidden, Invalid) as error:
            why = Finding(Reason.JOB_NOT_ALLOWED, f"The evaluation Job could not be created: {error}.")
            await self._write(copy, (False, why))
        else:
            metrics.JOBS.labels("evaluate").inc()

    async def _write(self, copy: Release, measured: tuple[bool | None, Finding] | None) -> None:
        hub = self._hub
        conditions = ConditionSet(
            (c for c in copy.status.conditions if c.type in COPY_CONDITIONS),
            copy.metadata.generation,
            hub.clock.now(),
        )
        if measured is not None:
            holds, finding = measured
            conditions.set(ConditionType.VALIDATED, holds, finding.reason, finding.message)
        reply = answer(copy)
        if reply is not None:
            conditions.set(ConditionType.READY, reply.is_true, Reason(reply.reason), reply.message)
        elif measured is not None and measured[0] is False:
            conditions.set(ConditionType.READY, False, measured[1].reason, measured[1].message)
        else:
            conditions.set(ConditionType.READY, False, Reason.IN_PROGRESS, "The namespace's agent has not decided yet.")
        status = ReleaseStatus(observed_generation=copy.metadata.generation, conditions=conditions.list())
        await write_status(hub.cluster, copy, status, FIELD_MANAGER, COPY_CONDITIONS)

    async def _progress(self, job: Mapping[str, Any]) -> tuple[bool | None, Finding]:
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        job_outcome = outcome(job)
        if job_outcome is None:
            message = f"The evaluation Job runs: kubectl logs job/{name} -n {namespace}."
            return None, Finding(Reason.VALIDATING, message)
        if job_outcome.completed is not None:
            return True, Finding(Reason.VALIDATED, "The evaluation Job measured the release.")
        return False, Finding(*failure(job, await self._hub.cluster.list_pods(namespace, name)))
