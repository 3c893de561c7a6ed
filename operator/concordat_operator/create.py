"""Creating objects so that a repeated step changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from concordat.api import FederationRound
from concordat.api.resource import Resource
from concordat.api.types import LABEL_FEDERATION, LABEL_MANAGED_BY, LABEL_ROUND, LABEL_ROUND_UID, MANAGED_BY, RoundRef
from concordat.controller import JOB, AlreadyExists, Cluster, Conflict


def manifest(resource: Resource) -> dict[str, Any]:
    """Return one of our objects as it is created: no status, no metadata but what we set."""
    wire = resource.wire()
    metadata = {name: wire["metadata"][name] for name in ("name", "namespace", "labels") if wire["metadata"].get(name)}
    return {"apiVersion": wire["apiVersion"], "kind": wire["kind"], "metadata": metadata, "spec": wire["spec"]}


async def create_once(cluster: Cluster, resource: Resource) -> None:
    """Create it; one of that name that the same round made before a crash is left alone.

    Raises Conflict where the one of that name belongs to another round.
    """
    try:
        await cluster.create(manifest(resource))
    except AlreadyExists:
        existing = await cluster.get(type(resource), resource.metadata.namespace, resource.metadata.name)
        made_by = (existing["metadata"].get("labels") or {}).get(LABEL_ROUND_UID)
        if made_by != resource.metadata.labels.get(LABEL_ROUND_UID):
            where = f"{resource.KIND.kind} {resource.metadata.namespace}/{resource.metadata.name}"
            raise Conflict(f"{where} belongs to another round ({made_by or 'none'}): delete it") from None
        if cluster.on_write is not None:
            cluster.on_write(existing)


async def create_job(cluster: Cluster, job: Mapping[str, Any]) -> None:
    """Create a Job; one of that name must belong to the same owner. Raises Conflict otherwise.

    Raises Forbidden or Invalid where RBAC, admission or a quota does not allow it.
    """
    metadata = job["metadata"]
    try:
        await cluster.create(dict(job))
    except AlreadyExists:
        existing = await cluster.get(JOB, metadata["namespace"], metadata["name"])
        if _owners(existing) != _owners(job):
            raise Conflict(
                f"Job {metadata['namespace']}/{metadata['name']} belongs to {_owners(existing)}: delete it"
            ) from None
        if cluster.on_write is not None:
            cluster.on_write(existing)


def labels(round_: FederationRound) -> dict[str, str]:
    """Return the labels of all that a round makes."""
    return {
        LABEL_ROUND: round_.metadata.name,
        LABEL_ROUND_UID: round_.metadata.uid,
        LABEL_FEDERATION: round_.spec.federation,
        LABEL_MANAGED_BY: MANAGED_BY,
    }


def round_ref(round_: FederationRound) -> RoundRef:
    """Return the round as other objects name it."""
    metadata = round_.metadata
    return RoundRef(name=metadata.name, namespace=metadata.namespace, uid=metadata.uid)


def later(start: datetime, seconds: int) -> datetime:
    """Return a time so many seconds after `start`, to the second."""
    return start.replace(microsecond=0) + timedelta(seconds=seconds)


def _owners(obj: Mapping[str, Any]) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or []}
