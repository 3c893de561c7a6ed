"""A Membership: show whether its site is there and shows one of its keys. The operator writes nothing else of it."""

from __future__ import annotations

from concordat.api import Membership, Site
from concordat.controller import Key, Result, write_status
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.members import plan

_LOOK_AGAIN_SECONDS = 60.0
"""Keys begin and cease to count as time passes."""


class MembershipReconciler:
    """Shows what the hub makes of its Memberships."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, key: Key) -> Result:
        """Look at one Membership, and again after a while if some key has a term."""
        hub, (namespace, name) = self._hub, key
        membership = hub.cache.get(Membership, *key)
        if membership is None or namespace != hub.settings.namespace or membership.metadata.deletion_timestamp:
            return Result()
        now, site = hub.clock.now(), hub.cache.get(Site, name, name)
        found = hub.members.of(site, now) if site is not None else None
        status = plan.status(membership, found, now)
        await write_status(hub.cluster, membership, status, FIELD_MANAGER)
        return Result(_LOOK_AGAIN_SECONDS if plan.has_terms(membership) else None)
