"""A ReleaseChannel: follow its release, offer it to the sites that subscribe (`plan.channel`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from concordat.api import ConditionSet, Release, ReleaseChannel, Site
from concordat.api.release import copy_name
from concordat.api.types import LABEL_RELEASE, LABEL_SITE, ObjectMeta
from concordat.controller import Key, Result, fields, gather_bounded, write_status
from concordat_operator.channels.plan import ObservedChannel, describe, observe
from concordat_operator.create import create_once
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.releases.plan import copy_spec

log = logging.getLogger(__name__)

REQUEUE_SECONDS = 30.0


class ChannelReconciler:
    """Distributes approved releases."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, key: Key) -> Result:
        """Offer the channel's release where it is lacking, then count."""
        hub = self._hub
        channel = hub.cache.get(ReleaseChannel, *key)
        if channel is None or key[0] != hub.settings.namespace or channel.metadata.deletion_timestamp is not None:
            return Result()
        observed = self._observe(channel)
        if isinstance(observed.target, Release):
            await self._offer_all(observed.target, observed.lacking)
            observed = self._observe(channel)
        now = ConditionSet(channel.status.conditions, channel.metadata.generation, hub.clock.now())
        await write_status(hub.cluster, channel, describe(observed, now, channel.metadata.generation), FIELD_MANAGER)
        return Result(REQUEUE_SECONDS if observed.lacking else None)

    def _observe(self, channel: ReleaseChannel) -> ObservedChannel:
        return observe(channel, self._hub.cache.list(Release), self._hub.cache.list(Site))

    async def _offer_all(self, release: Release, sites: Sequence[Site]) -> None:
        """Give each site its copy. One that cannot be reached does not keep the release from the others."""
        for site, error in await gather_bounded(sites, lambda site: self._offer(release, site)):
            log.warning(
                "not offered", extra=fields(release=release.metadata.name, site=site.metadata.name, error=error)
            )

    async def _offer(self, release: Release, site: Site) -> None:
        metadata = ObjectMeta(
            name=copy_name(release),
            namespace=site.metadata.namespace,
            labels={
                **release.metadata.labels,
                LABEL_RELEASE: release.metadata.name,
                LABEL_SITE: site.metadata.name,
            },
        )
        spec = copy_spec(release, release.status.lineage, deadline=False)
        await create_once(self._hub.cluster, Release(metadata=metadata, spec=spec))
