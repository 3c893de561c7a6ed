"""A round that is being deleted: what it made goes first, in the cluster and then in the registry.

Every step reads what is there now, so it can be repeated after a crash at any point. The finalizer goes last.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from concordat.api import FederationRound, Reason, Release, Update
from concordat.api.resource import Resource
from concordat.api.types import FINALIZER, LABEL_ROUND_UID
from concordat.artifacts import RegistryUnavailable
from concordat.controller import JOB, Conflict, Forbidden, Key, KindLike, fields, write_status
from concordat_operator.finding import Finding
from concordat_operator.history.artifacts import delete_decision, delete_round_artifacts
from concordat_operator.history.sequences import remember
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.rounds.describe import deleting
from concordat_operator.rounds.plan import approved
from concordat_operator.text import names

log = logging.getLogger(__name__)

LEAST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between two looks at a round that cannot go yet."""
_RIGHTS_MAY_RETURN = timedelta(minutes=1)
"""The wait for a site that does not let the hub delete what is there: its chart may be under upgrade, or the API server
just started. What was left behind without a round would go at the next resync only."""


@dataclass(frozen=True)
class Dependent:
    """An object that the round made and that is still there."""

    kind: str
    key: Key
    going: bool
    """Whether it was being deleted before this pass."""
    finalizers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as a person would look it up."""
        by = f" ({', '.join(self.finalizers)})" if self.finalizers else ""
        return f"{self.kind} {self.key[0]}/{self.key[1]}{by}"


async def clean_up(hub: Hub, round_: FederationRound) -> float | None:
    """Delete what the round made, then the finalizer; return the seconds until the next look.

    An approved release stays, because sites use it, and with it what it names in the registry.
    """
    releases = [Release.model_validate(raw) for raw in await hub.cluster.list(Release, labels=_mine(round_))]
    staying = [r for r in releases if r.metadata.namespace == round_.metadata.namespace and approved(r)]
    finding: Finding | None = None
    try:
        left = await _delete_dependents(hub, round_, releases, {r.metadata.name for r in staying})
        if not left:
            await delete_round_artifacts(hub, round_, staying)
        elif all(dependent.going for dependent in left):
            finding = Finding(Reason.CLEANING_UP, f"Waiting for {names(str(d) for d in left)} to go.")
    except RegistryUnavailable as error:
        finding = Finding(Reason.REGISTRY_UNAVAILABLE, f"The round's artifacts are deleted before the round: {error}.")
    else:
        if not left:
            others = [name for name in round_.metadata.finalizers if name != FINALIZER]
            await hub.cluster.set_finalizers(FederationRound, *round_.key, others, round_.metadata.resource_version)
            log.info("round cleaned up", extra=fields(round=round_.metadata.name))
            return None
    now = hub.clock.now()
    if finding is not None:
        await write_status(hub.cluster, round_, deleting(round_, finding, now), FIELD_MANAGER)
    return pause(round_.metadata.deletion_timestamp, now)


def pause(deleted: datetime | None, now: datetime) -> float:
    """Return the seconds until the next look: a quarter of the time that the deletion has taken, at most a minute."""
    taken = 0.0 if deleted is None else (now - deleted).total_seconds()
    return min(LONGEST_PAUSE, max(LEAST_PAUSE, taken / 4))


async def _delete_dependents(
    hub: Hub, round_: FederationRound, releases: Collection[Release], staying: Collection[str]
) -> list[Dependent]:
    """Delete what is there, each object once; return what has to go before the round can."""
    owners: set[str] = set()
    left: list[Dependent | None] = []
    deleted = round_.metadata.deletion_timestamp
    patient = deleted is not None and hub.clock.now() - deleted < _RIGHTS_MAY_RETURN
    for raw in await hub.cluster.list(Update, labels=_mine(round_)):
        owners.add(raw["metadata"]["uid"])
        left.append(await _delete(hub, Update, raw["metadata"], patient=patient))
    for release in releases:
        owners.add(release.metadata.uid)
        if release.metadata.name in staying:
            continue
        if release.metadata.namespace == round_.metadata.namespace:
            await remember(hub.cluster, release.metadata.namespace, release.spec.federation, release.spec.sequence)
        else:
            await delete_decision(hub, release)
        left.append(await _delete(hub, Release, release.wire()["metadata"], patient=patient))
    for job in await hub.cluster.list(JOB, labels=_mine(round_)):
        owned = owners & {owner["uid"] for owner in job["metadata"].get("ownerReferences") or []}
        # The garbage collector deletes a Job with its owner; what it leaves behind is deleted at the next look.
        left.append(None if owned else await _delete(hub, JOB, job["metadata"], patient=patient))
    return [dependent for dependent in left if dependent is not None]


async def _delete(
    hub: Hub, kind: KindLike | type[Resource], metadata: dict[str, Any], *, patient: bool
) -> Dependent | None:
    """Delete an object unless that was done before; return None if there is nothing to wait for.

    `patient`: wait where the site does not let the hub do it.
    """
    key, going = (metadata["namespace"], metadata["name"]), bool(metadata.get("deletionTimestamp"))
    word = "job" if kind is JOB else ("update" if kind is Update else "release")
    dependent = Dependent(word, key, going, tuple(metadata.get("finalizers") or ()))
    if going:
        return dependent
    try:
        return dependent if await hub.cluster.delete(kind, *key, metadata["uid"]) else None
    except Conflict:
        return None  # Another object of that name: not ours.
    except Forbidden as error:
        if patient:
            return dependent
        # The site has withdrawn the hub's rights; what the round left there is the site's to remove.
        log.warning("not removed", extra=fields(namespace=key[0], name=key[1], error=str(error)))
        return None


def _mine(round_: FederationRound) -> dict[str, str]:
    return {LABEL_ROUND_UID: round_.metadata.uid}
