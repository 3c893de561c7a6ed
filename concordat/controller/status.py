"""One status write per reconcile, and none where nothing changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from concordat.api.conditions import Condition, ConditionType
from concordat.api.resource import Resource
from concordat.api.types import Model
from concordat.controller.client import Cluster
from concordat.controller.errors import Conflict
from concordat.controller.events import announce, transition_events

_TRIES = 5
"""Of a status write while others write the same object's status."""


async def write_status(
    cluster: Cluster,
    obj: Resource,
    status: Model,
    manager: str,
    owned_conditions: Collection[ConditionType] | None = None,
    *,
    unchanged: bool = False,
) -> bool:
    """Make what is set in `status` the status of `obj`, as field manager `manager`. True if written.

    What the caller passed to the status' constructor is all that `manager` owns, each time: a field set to None
    is removed, a field never set belongs to another manager. `owned_conditions` names the condition types that
    `manager` owns; None means all. Compared with what `obj` shows, an equal status costs no request; otherwise
    it is exactly one server-side apply, then one Event and one log line per transition.

    The write applies to the very object that was looked at, never to a later one of the same name. With `unchanged`
    it also fails if that object was changed since, by anybody: for a step that cannot be taken back.

    Raises Conflict or NotFound if the object is gone or not the one that was looked at, ApiError; and, after the
    write, ValueError where the caller and the API server disagree on what `manager` owns.
    """
    observed: Model = getattr(obj, "status")  # noqa: B009 - every kind has one, their base does not
    owned = set(status.model_fields_set)
    desired = _owned(status, owned, owned_conditions)
    if desired == _owned(observed, owned, owned_conditions):
        return False
    body = dict(desired)
    if "conditions" in body:
        body["conditions"] = list(body["conditions"].values())
    written = await _apply(cluster, obj, body, manager, unchanged=unchanged)
    await announce(
        cluster,
        obj,
        transition_events(_conditions(observed), _mine(_conditions(status), owned_conditions)),
        manager,
    )
    _check_ownership(obj, manager, observed, status, written.get("status") or {})
    return True


async def _apply(
    cluster: Cluster, obj: Resource, status: dict[str, Any], manager: str, *, unchanged: bool
) -> dict[str, Any]:
    """Apply to this object only. The API server checks the version, so the uid is checked here where that differs."""
    version = obj.metadata.resource_version
    for _ in range(_TRIES - 1):
        try:
            return await cluster.apply_status(type(obj), *obj.key, status, manager, resource_version=version)
        except Conflict:
            if unchanged:
                raise
            current = (await cluster.get(type(obj), *obj.key))["metadata"]
            if current["uid"] != obj.metadata.uid:
                raise
            version = current["resourceVersion"]
    return await cluster.apply_status(type(obj), *obj.key, status, manager, resource_version=version)


def _check_ownership(obj: Resource, manager: str, observed: Model, status: Model, written: Mapping[str, Any]) -> None:
    """Server-side apply takes away what an owner leaves out, and leaves what another owns: both are bugs here."""
    for field, info in type(status).model_fields.items():
        name, present = info.alias or field, (info.alias or field) in written
        where = f"{obj.KIND.kind}.status.{name}"
        if field not in status.model_fields_set:
            if getattr(observed, field) not in (None, []) and not present:
                raise ValueError(f"{where} was owned by {manager} and is lost: pass it in every status")
        elif getattr(status, field) is None and present:
            raise ValueError(f"{where} is owned by another field manager than {manager}: leave it unset, not None")


def _owned(status: Model, names: set[str], types: Collection[ConditionType] | None) -> dict[str, Any]:
    wire: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True, include=names)
    if "conditions" in wire:
        # By type: the order of a map list is the API server's affair.
        wire["conditions"] = {c["type"]: c for c in wire["conditions"] if types is None or c["type"] in types}
    return wire


def _conditions(status: Model) -> list[Condition]:
    return list(getattr(status, "conditions", []))


def _mine(conditions: list[Condition], types: Collection[ConditionType] | None) -> list[Condition]:
    return [c for c in conditions if types is None or c.type in types]
