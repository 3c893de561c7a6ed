"""Kubernetes Events and log lines for what changed in an object's conditions."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from concordat.api.conditions import RETRIED_REASONS, Condition, ConditionStatus, ConditionType
from concordat.api.resource import Resource
from concordat.controller.client import Cluster
from concordat.controller.errors import ApiError
from concordat.controller.logs import fields

log = logging.getLogger(__name__)

_BAD_IF_TRUE = frozenset(
    {ConditionType.STALLED, ConditionType.POISONING_ALERT, ConditionType.QUARANTINED, ConditionType.CLOCK_SKEW}
)
_SILENT = frozenset({ConditionType.RECONCILING})


@dataclass(frozen=True)
class Transition:
    """One thing that happened to an object: a condition got another status or reason."""

    condition: str
    status: ConditionStatus
    reason: str
    message: str
    warning: bool
    since: datetime


def transition_events(old: Iterable[Condition], new: Iterable[Condition]) -> list[Transition]:
    """Return what changed from the old conditions to the new ones, in the order of the new ones.

    A condition that is Unknown, or False because its step has not ended, is no event, unless something is in that
    step's way. Of several conditions
    that change for the same reason only the first is: Succeeded=True Released and Ready=True Released are one
    event.
    """
    before = {c.type: (c.status, c.reason) for c in old}
    transitions: dict[str, Transition] = {}
    for condition in new:
        if before.get(condition.type) == (condition.status, condition.reason) or condition.type in _SILENT:
            continue
        pending = condition.is_pending and condition.reason not in RETRIED_REASONS
        if condition.status is ConditionStatus.UNKNOWN or pending:
            continue
        warning = condition.is_true if condition.type in _BAD_IF_TRUE else condition.is_false
        transitions.setdefault(
            condition.reason,
            Transition(
                condition.type,
                condition.status,
                condition.reason,
                condition.message,
                warning,
                condition.last_transition_time,
            ),
        )
    return list(transitions.values())


def event_name(obj: Resource, transition: Transition) -> str:
    """Return a name that is the same for the same transition, so that a repeated pass posts no second Event.

    `obj` is the object before it. A reason that comes again, from a later version of the object, is another transition.
    """
    identity = (
        obj.metadata.uid,
        obj.metadata.resource_version,
        transition.condition,
        transition.status.value,
        transition.reason,
    )
    return f"{obj.metadata.name}.{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}"


async def announce(cluster: Cluster, obj: Resource, transitions: Iterable[Transition], manager: str) -> None:
    """Log each transition, and post as an Event what a person would want to know.

    Of an object that is one of very many, which a round makes for each site, that is only what went wrong: the log and
    the summary on the round or the release tell the rest. An Event that cannot be posted is only logged.
    """
    controller = manager.removesuffix("-status")
    for transition in transitions:
        log.log(
            logging.WARNING if transition.warning else logging.INFO,
            transition.message or transition.reason,
            extra=fields(
                kind=obj.KIND.kind,
                namespace=obj.metadata.namespace,
                name=obj.metadata.name,
                condition=transition.condition,
                status=transition.status.value,
                reason=transition.reason,
            ),
        )
        if obj.one_of_many and not transition.warning:
            continue
        try:
            await cluster.create_event(
                {**obj.model_dump(mode="json", by_alias=True, include={"api_version", "kind", "metadata"})},
                name=event_name(obj, transition),
                reason=transition.reason,
                note=transition.message,
                warning=transition.warning,
                controller=controller,
                at=transition.since,
            )
        except ApiError as error:
            log.warning("event not posted", extra=fields(reason=transition.reason, error=str(error)))
