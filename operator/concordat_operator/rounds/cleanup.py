"""A round that is being deleted: what it made goes first."""

from __future__ import annotations

import logging
from typing import Any

from concordat.api import FederationRound, Release, Update
from concordat.api.resource import Resource
from concordat.api.types import FINALIZER, LABEL_ROUND_UID
from concordat.controller import JOB, Conflict, Forbidden, Key, KindLike, fields
from concordat_operator.hub import Hub
from concordat_operator.rounds.plan import approved

log = logging.getLogger(__name__)

REQUEUE_SECONDS = 1.0


async def clean_up(hub: Hub, round_: FederationRound) -> float | None:
    """Delete Updates, Jobs and candidates that were not approved, then the finalizer; seconds until the next look.

    An approved release stays, because sites use it.
    """
    mine = {LABEL_ROUND_UID: round_.metadata.uid}
    left = 0
    for update in hub.cache.list(Update, labels=mine):
        left += await _delete(hub, Update, update.key, update.metadata.uid)
    releases = hub.cache.list(Release, labels=mine)
    approved_names = {
        r.metadata.name for r in releases if r.metadata.namespace == round_.metadata.namespace and approved(r)
    }
    for release in releases:
        if release.metadata.name not in approved_names:
            left += await _delete(hub, Release, release.key, release.metadata.uid)
    for job in hub.cache.list(JOB, labels=mine):
        if _owner(job) not in approved_names:
            metadata = job["metadata"]
            left += await _delete(hub, JOB, (metadata["namespace"], metadata["name"]), metadata["uid"])
    if left:
        return REQUEUE_SECONDS
    others = [name for name in round_.metadata.finalizers if name != FINALIZER]
    await hub.cluster.set_finalizers(FederationRound, *round_.key, others, round_.metadata.resource_version)
    log.info("round cleaned up", extra=fields(round=round_.metadata.name))
    return None


async def _delete(hub: Hub, kind: KindLike | type[Resource], key: Key, uid: str) -> int:
    """Return 1 if it may still be there, 0 if there is nothing to wait for."""
    try:
        if not await hub.cluster.delete(kind, *key, uid):
            return 0
    except Conflict:
        return 0  # Another object of that name: not ours.
    except Forbidden as error:
        # The site has withdrawn the hub's rights; what the round left there is the site's to remove.
        log.warning("not removed", extra=fields(namespace=key[0], name=key[1], error=str(error)))
        return 0
    return 1


def _owner(job: dict[str, Any]) -> str:
    owners = job["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("name", "")) if owners[0].get("kind") == "Release" else ""
