"""Admission of Jobs, and reliance on what one left. The hub proposes Jobs, suspended; the agent looks.

No pod of a Job exists before its agent has compared the Job with what contract and site yield, emptied the folder for
its output and noted the Job on a volume that no Job can write. What another Job left is therefore never taken for this
one's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from concordat.api import Reason, Resource
from concordat.api.types import ArtifactRef, Model
from concordat_agent.agent import FIELD_MANAGER, Agent


class Refused(Exception):
    """A Job must not run, or what it left must not be relied on. The message has no full stop."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Admission(Model):
    """The Job that the agent let run for an Update or a Release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_uid: str


async def admit(agent: Agent, about: Resource, job: Mapping[str, Any]) -> None:
    """Let a Job run that was found to be right. Raises Conflict if it is not the same any more, OSError."""
    admission = Admission(job_uid=job["metadata"]["uid"])
    if agent.notes.of(about, Admission) != admission:
        # Once: when the answer to the patch below was lost, the Job runs already and writes there.
        agent.workspace.empty_output(job["metadata"]["name"])
        agent.notes.keep(about, admission)
    await agent.cluster.resume(job, FIELD_MANAGER)


async def demand(
    agent: Agent, about: Resource, job: Mapping[str, Any], *, base: ArtifactRef, inputs: Mapping[str, str]
) -> None:
    """Demand that this agent let this very Job run, and that its inputs are still what was staged.

    `inputs` are the digests of the files in its task folder. Raises Refused, ArtifactError, OSError.
    """
    admission = agent.notes.of(about, Admission)
    if admission is None or admission.job_uid != job["metadata"]["uid"]:
        raise Refused(Reason.JOB_NOT_ALLOWED, "The Job ran without having been admitted by this agent")
    workspace, files = agent.workspace, await agent.registry.file_digests(base)
    task = workspace.inputs(job["metadata"]["name"])
    if changed := await asyncio.to_thread(workspace.difference, task, inputs):
        raise Refused(Reason.INPUT_CHANGED, f"The Job's inputs are not what was staged: {changed}")
    if changed := await asyncio.to_thread(workspace.difference, workspace.base(base.digest), files):
        workspace.discard_base(base.digest)
        raise Refused(Reason.INPUT_CHANGED, f"The base package is not what was staged: {changed}; it is fetched anew")
