"""Why a Job that has not ended does not run: read from the Job and its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from concordat.api.conditions import Reason
from concordat.jobs.pod_status import condition, line, states

PATIENCE = timedelta(seconds=30)
"""How long a pod may take to start before somebody wants to know why."""
_BUSY = timedelta(minutes=3)
"""The same for a site's agent to admit a Job, and for Kubernetes to begin with one: it makes about twenty pods a
second, and a thousand sites want one."""

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_COMES_BY_ITSELF = frozenset({"ContainerCreating", "PodInitializing"})


def look_after(job: Mapping[str, Any], now: datetime) -> timedelta | None:
    """Return in how long to see why the Job's pod does not run: zero is now, None is never, because one runs."""
    status = job.get("status") or {}
    since = status.get("startTime") or job["metadata"].get("creationTimestamp")
    if status.get("ready") or since is None:
        return None
    patience = PATIENCE if status.get("startTime") and not is_suspended(job) else _BUSY
    return max(datetime.fromisoformat(since) + patience - now, timedelta(0))


def pending(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> tuple[Reason, str] | None:
    """Return why the Job does not run, with a sentence for people; None if it does. `pods` are its own, oldest first.

    Events would say more of volumes and quotas, but the operator may not read a site's Events.
    """
    metadata = job["metadata"]
    look = f"kubectl describe job/{metadata['name']} -n {metadata['namespace']}"
    if is_suspended(job):
        return Reason.QUEUED, f"The Job is suspended until the site's agent admits it: {look}."
    if pods:
        return _pod_pending(pods[-1])
    if (job.get("status") or {}).get("startTime"):
        return Reason.POD_PENDING, f"The Job has no pod: a quota, policy or webhook may refuse it; see {look}."
    return Reason.POD_PENDING, f"Kubernetes has not begun with the Job: does kube-controller-manager run? {look}."


def is_suspended(job: Mapping[str, Any] | None) -> bool:
    """Return whether there is a Job that may have no pod yet."""
    return bool(((job or {}).get("spec") or {}).get("suspend"))


def _pod_pending(pod: Mapping[str, Any]) -> tuple[Reason, str] | None:
    status, metadata = pod.get("status") or {}, pod["metadata"]
    name = metadata["name"]
    if status.get("phase") != "Pending":
        return None
    unscheduled = condition(status, "PodScheduled", "False")
    if unscheduled is not None:
        text = line(unscheduled.get("message") or unscheduled.get("reason") or "")
        if unscheduled.get("reason") == "SchedulingGated":
            return Reason.QUEUED, f"Pod {name} is held by a scheduling gate: {text}."
        volume = "volume" in text.lower()
        return Reason.VOLUME_NOT_READY if volume else Reason.UNSCHEDULABLE, f"Pod {name} finds no node: {text}."
    found = list(states(status))
    if any("running" in state for state in found):
        return None
    for waiting in (state.get("waiting") or {} for state in found):
        why = waiting.get("reason")
        if why in _IMAGE:
            return Reason.IMAGE_PULL_FAILED, f"Pod {name} has no image ({why}): {line(waiting.get('message') or '')}."
        if why and why not in _COMES_BY_ITSELF:
            return Reason.POD_PENDING, f"Pod {name} cannot start ({why}): {line(waiting.get('message') or '')}."
    look = f"see kubectl describe pod/{name} -n {metadata.get('namespace', '')}"
    if condition(status, "PodReadyToStartContainers", "False") is not None:
        return Reason.VOLUME_NOT_READY, f"Pod {name} waits for its volumes or its network: {look}."
    return Reason.POD_PENDING, f"Pod {name} is being started, perhaps with a large image: {look}."
