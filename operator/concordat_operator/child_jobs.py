"""The Jobs that the operator makes: started, started again, and looked at while they do not run."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from concordat.api import ConditionType, Reason, Resource
from concordat.api.types import Model
from concordat.controller import Forbidden, Invalid, QuotaExceeded, fields, write_status
from concordat.errors import Transient
from concordat.jobs import PATIENCE, ended, is_suspended, look_after, own_pods, pending
from concordat_operator.create import create_job
from concordat_operator.finding import Finding
from concordat_operator.hub import FIELD_MANAGER, Hub

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a Job that failed for want of memory, a node, an image or time is run in all."""
RETRY_SECONDS = 30.0
"""How soon a Job that could not be made is tried again."""


def backoff_seconds(failed: int) -> int:
    """Return the seconds to wait after that many failed attempts: 30, 120."""
    return int(30 * 4 ** (failed - 1))


async def start(hub: Hub, job: Mapping[str, Any], *, again: bool) -> Finding | None:
    """Create a Job; `again` if one of its name was there before. Returns why it is not there now, None if it is.

    Its reason is JOB_NOT_ALLOWED if trying again does not help, otherwise a pending one.
    """
    metadata = job["metadata"]
    if again and not all(map(ended, await hub.cluster.list_pods(metadata["namespace"], metadata["name"]))):
        # Two pods must not write the same folder at once.
        return Finding(Reason.POD_PENDING, "Pods of the Job before are still being stopped.")
    try:
        await create_job(hub.cluster, job)
    except QuotaExceeded as error:
        return Finding(Reason.QUOTA_EXCEEDED, f"The Job waits for room in a quota: {error}.")
    except (Forbidden, Invalid) as error:
        return Finding(Reason.JOB_NOT_ALLOWED, f"The Job could not be created: {error}.")
    return None


async def own(hub: Hub, job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the Job's pods, oldest first."""
    return own_pods(job, await hub.cluster.list_pods(job["metadata"]["namespace"], job["metadata"]["name"]))


async def not_running(hub: Hub, job: Mapping[str, Any]) -> Finding | None:
    """Return why a Job does not run though it had time to start; None if it runs, or had no time yet."""
    after = look_after(job, hub.clock.now())
    if after is None or after:
        return None
    found = pending(job, [] if is_suspended(job) else await own(hub, job))
    return Finding(*found) if found is not None else None


async def show(
    hub: Hub, obj: Resource, status: Model, conditions: Collection[ConditionType], until: datetime | None
) -> None:
    """Write the operator's part of a status in a site's namespace.

    Raises Transient where that is forbidden, before `until`: an API server that was just started knows nobody's
    rights, and a chart that is upgraded may take them away for a moment. After it a site that has withdrawn them is
    only logged: that is its right, and must not keep the operator busy.
    """
    try:
        await write_status(hub.cluster, obj, status, FIELD_MANAGER, conditions)
    except Forbidden as error:
        if until is not None and hub.clock.now() < until:
            raise Transient(str(error)) from error
        namespace, name = obj.key
        log.warning("status not shown", extra=fields(namespace=namespace, name=name, error=str(error)))


def requeue_seconds(job: Mapping[str, Any] | None, now: datetime) -> float | None:
    """Return in how many seconds to look whether the pod of a Job that has not ended runs; None: it does."""
    after = look_after(job, now) if job is not None else None
    return None if after is None else (after or PATIENCE).total_seconds()
