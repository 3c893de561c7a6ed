"""What is kept in memory of objects that the operator watches and reads only in part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNREAD_SPEC = frozenset({"template", "selector", "podFailurePolicy", "manualSelector", "completionMode"})
_UNREAD_STATUS = frozenset({"uncountedTerminatedPods", "terminating"})
_UNREAD_POD = frozenset({"volumes", "securityContext", "serviceAccount", "dnsPolicy", "schedulerName"})
_READ_CONTAINER = ("name", "image", "command", "args", "resources")


def slim_job(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the operator reads of a Job: no volumes, mounts and security contexts, which only agents compare."""
    template = (job.get("spec") or {}).get("template") or {}
    pod = template.get("spec") or {}
    kept = {name: value for name, value in pod.items() if name not in _UNREAD_POD}
    for containers in ("containers", "initContainers"):
        if containers in pod:
            kept[containers] = [_slim_container(container) for container in pod[containers]]
    spec = {name: value for name, value in (job.get("spec") or {}).items() if name not in _UNREAD_SPEC}
    metadata = {name: value for name, value in job["metadata"].items() if name != "annotations"}
    status = {name: value for name, value in (job.get("status") or {}).items() if name not in _UNREAD_STATUS}
    return {**job, "metadata": metadata, "spec": {**spec, "template": {"spec": kept}}, "status": status}


def _slim_container(container: Mapping[str, Any]) -> dict[str, Any]:
    return {name: container[name] for name in _READ_CONTAINER if name in container}
