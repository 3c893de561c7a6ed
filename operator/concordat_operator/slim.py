"""What is kept in memory of Jobs: anybody may make one with our label, as large as the API server takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from concordat.api.types import GROUP, LABEL_MANAGED_BY

_METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
_SPEC = ("suspend", "activeDeadlineSeconds", "backoffLimit")
_STATUS = ("startTime", "completionTime", "active", "ready", "succeeded", "failed")
_MOST = 8
"""Containers, conditions, labels and owners that are kept: ours have fewer."""
_LONGEST = 1024


def slim_job(job: dict[str, Any]) -> dict[str, Any]:
    """Return what the operator reads of a Job: whose it is, how it goes, and how much its containers may use."""
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    kept = _some(metadata, _METADATA)
    labels = sorted((metadata.get("labels") or {}).items())
    kept["labels"] = dict([(k, v) for k, v in labels if k.startswith(f"{GROUP}/") or k == LABEL_MANAGED_BY][:_MOST])
    owners = [_some(owner, ("kind", "name", "uid", "controller")) for owner in metadata.get("ownerReferences") or []]
    kept["ownerReferences"] = owners[:_MOST]
    pod = (spec.get("template") or {}).get("spec") or {}
    containers = [_container(container) for container in (pod.get("containers") or [])[:_MOST]]
    conditions = [_some(c, ("type", "status", "reason", "message")) for c in (status.get("conditions") or [])[:_MOST]]
    return {
        "apiVersion": job["apiVersion"],
        "kind": job["kind"],
        "metadata": kept,
        "spec": {**_some(spec, _SPEC), "template": {"spec": {"containers": containers}}},
        "status": {**_some(status, _STATUS), "conditions": conditions},
    }


def _container(container: Mapping[str, Any]) -> dict[str, Any]:
    limits = (container.get("resources") or {}).get("limits") or {}
    return {**_some(container, ("name",)), "resources": {"limits": _some(limits, ("memory",))}}


def _some(obj: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _short(obj[name]) for name in names if name in obj}


def _short(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value
