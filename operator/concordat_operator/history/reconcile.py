"""The history of a federation: delete the rounds and releases that `plan.surplus` names, and what they left."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

from concordat.api import FederationRound, Release, ReleaseChannel, Site, Update
from concordat.api.resource import Resource
from concordat.api.types import LABEL_FEDERATION, LABEL_ROUND_UID
from concordat.artifacts import RegistryUnavailable
from concordat.controller import Conflict, Forbidden, Key, Result, fields
from concordat_operator.history.artifacts import contract_of, delete_decision, delete_release_artifacts, living_digests
from concordat_operator.history.plan import ObservedHistory, Surplus, surplus
from concordat_operator.history.sequences import remember
from concordat_operator.hub import Hub

log = logging.getLogger(__name__)

RESYNC_SECONDS = 3600.0
"""Between two looks at a federation in which no round ends: sites move on, and annotations change."""
REQUEUE_SECONDS = 60.0

R = TypeVar("R", bound=Resource)


class HistoryReconciler:
    """Bounds the history of each federation: a key is the hub's namespace and the federation's name."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, key: Key) -> Result:
        """Delete what is beyond the limit. Raises Transient when the API server is out of reach."""
        hub, federation = self._hub, key[1]
        if key[0] != hub.settings.namespace:
            return Result()
        try:
            if not surplus(await self._observed(federation, _cached_lists(hub)), hub.settings.history_limit):
                return Result(RESYNC_SECONDS)
            # The cache says that something goes; only the API server says what.
            observed = await self._observed(federation, await _live_lists(hub, federation))
            deleted = await self._delete(observed, surplus(observed, hub.settings.history_limit))
        except RegistryUnavailable as error:
            log.warning("history not bounded yet", extra=fields(federation=federation, error=str(error)))
            return Result(REQUEUE_SECONDS)
        # A round goes after the release that named it.
        return Result(REQUEUE_SECONDS if deleted else RESYNC_SECONDS)

    async def _observed(self, federation: str, lists: Lists) -> ObservedHistory:
        """Return the federation's part of the lists, and what its open rounds start from."""
        rounds = [r for r in lists[0] if r.spec.federation == federation]
        return ObservedHistory(
            hub=self._hub.settings.namespace,
            rounds=rounds,
            releases=[r for r in lists[1] if r.spec.federation == federation],
            channels=[c for c in lists[2] if c.spec.federation == federation],
            sites=lists[3],
            with_updates=frozenset(u.spec.round_ref.uid for u in lists[4] if u.spec.federation == federation),
            parents=frozenset([name for r in rounds if not r.ended and (name := await self._parent(r))]),
        )

    async def _parent(self, round_: FederationRound) -> str | None:
        # A round whose contract is lost cannot go on from anything.
        contract = await contract_of(self._hub, round_)
        return contract.parent_release.name if contract is not None else None

    async def _delete(self, observed: ObservedHistory, going: Surplus) -> bool:
        """Delete what goes; return whether anything was deleted."""
        hub, deleted = self._hub, 0
        for round_ in going.rounds:
            # Its finalizer makes the round's own reconciler delete what it made.
            deleted += await self._delete_object(FederationRound, round_)
        for round_ in going.emptied:
            for update in hub.cache.list(Update, labels={LABEL_ROUND_UID: round_.metadata.uid}):
                deleted += await self._delete_object(Update, update)
        for copy in going.copies:
            await delete_decision(hub, copy)
            deleted += await self._delete_object(Release, copy)
        for release in going.releases:
            others = [r for r in observed.releases if r.metadata.name != release.metadata.name]
            rounds = [r for r in observed.rounds if not _made(r, release)]
            named = await living_digests(hub, rounds, others, observed.sites)
            await remember(hub.cluster, release.metadata.namespace, release.spec.federation, release.spec.sequence)
            await delete_release_artifacts(hub, release, named)
            # Last: it is the record of what is still to be deleted.
            deleted += await self._delete_object(Release, release)
        return deleted > 0

    async def _delete_object(self, kind: type[Resource], obj: Resource) -> bool:
        try:
            await self._hub.cluster.delete(kind, *obj.key, obj.metadata.uid)
        except (Conflict, Forbidden) as error:
            # Another object of that name, or a site that has withdrawn the hub's rights.
            log.warning("not removed", extra=fields(namespace=obj.key[0], name=obj.key[1], error=str(error)))
            return False
        log.info("beyond the history limit", extra=fields(kind=kind.KIND.kind, namespace=obj.key[0], name=obj.key[1]))
        return True


Lists = tuple[list[FederationRound], list[Release], list[ReleaseChannel], list[Site], list[Update]]


def _cached_lists(hub: Hub) -> Lists:
    cache, namespace = hub.cache, hub.settings.namespace
    return (
        cache.list(FederationRound, namespace),
        cache.list(Release),
        cache.list(ReleaseChannel, namespace),
        cache.list(Site),
        cache.list(Update),
    )


async def _live_lists(hub: Hub, federation: str) -> Lists:
    """List a federation's objects. Copies come before the hub's releases, so that none is taken for an orphan."""
    cluster, namespace = hub.cluster, hub.settings.namespace
    labelled = await cluster.list(Release, labels={LABEL_FEDERATION: federation})
    copies = [raw for raw in labelled if raw["metadata"]["namespace"] != namespace]
    releases = [*copies, *await cluster.list(Release, namespace)]
    channels, sites = await cluster.list(ReleaseChannel, namespace), await cluster.list(Site)
    rounds = await cluster.list(FederationRound, namespace)
    # In a thread: a thousand sites have ten thousand copies.
    return (
        await asyncio.to_thread(_parsed, FederationRound, rounds),
        await asyncio.to_thread(_parsed, Release, releases),
        await asyncio.to_thread(_parsed, ReleaseChannel, channels),
        await asyncio.to_thread(_parsed, Site, sites),
        hub.cache.list(Update),
    )


def _parsed(kind: type[R], items: list[dict[str, Any]]) -> list[R]:
    return [kind.model_validate(raw) for raw in items]


def _made(round_: FederationRound, release: Release) -> bool:
    return release.spec.round_ref is not None and release.spec.round_ref.uid == round_.metadata.uid
