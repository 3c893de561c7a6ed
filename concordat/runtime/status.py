"""One status write per reconcile, and none where nothing changed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from concordat.api.conditions import Condition
from concordat.api.resource import Resource
from concordat.api.types import Model
from concordat.runtime.client import Cluster
from concordat.runtime.events import announce, transition_events


async def write_status(
    cluster: Cluster,
    obj: Resource,
    status: Model,
    manager: str,
    owned_conditions: Collection[str] | None = None,
) -> bool:
    """Make what is set in `status` the status of `obj`, as field manager `manager`. True if written.

    What the caller passed to the status' constructor is what `manager` owns: a field set to None is removed,
    a field never set is left to its other owner. `owned_conditions` names the condition types that `manager`
    owns; None means all. Compared with what `obj` shows, an equal status costs no request; otherwise it is
    exactly one server-side apply, then one Event and one log line per transition. Raises ApiError; NotFound
    if the object is gone; ValueError after the write if a field set to None turns out to be owned by another
    manager.
    """
    observed: Model = getattr(obj, "status")  # noqa: B009 - every kind has one, their base does not
    owned = set(status.model_fields_set)
    desired = _owned(status, owned, owned_conditions)
    if desired == _owned(observed, owned, owned_conditions):
        return False
    body = dict(desired)
    if "conditions" in body:
        body["conditions"] = list(body["conditions"].values())
    namespace, name = obj.key
    written = await cluster.apply_status(type(obj), namespace, name, body, manager)
    await announce(
        cluster,
        obj,
        transition_events(_conditions(observed), _mine(_conditions(status), owned_conditions)),
        manager,
    )
    left = {type(status).model_fields[f].alias or f for f in owned} - desired.keys()
    if foreign := sorted(left & (written.get("status") or {}).keys()):
        raise ValueError(
            f"{obj.KIND.kind}.status.{foreign[0]} is owned by another field manager than {manager}: "
            "leave it unset instead of None"
        )
    return True


def _owned(status: Model, names: set[str], types: Collection[str] | None) -> dict[str, Any]:
    wire: dict[str, Any] = status.model_dump(mode="json", by_alias=True, exclude_none=True, include=names)
    if "conditions" in wire:
        # By type: the order of a map list is the API server's affair.
        wire["conditions"] = {c["type"]: c for c in wire["conditions"] if types is None or c["type"] in types}
    return wire


def _conditions(status: Model) -> list[Condition]:
    return list(getattr(status, "conditions", []))


def _mine(conditions: list[Condition], types: Collection[str] | None) -> list[Condition]:
    return [c for c in conditions if types is None or c.type in types]
