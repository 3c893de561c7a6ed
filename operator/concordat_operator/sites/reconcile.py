"""A Site: pin its key, follow its heartbeat, and publish whom sites may trust."""

from __future__ import annotations

from datetime import datetime

from concordat.api import Role, Site
from concordat.controller import LEASE, Forbidden, Key, NotFound, Result, write_status
from concordat.protocol.locations import AGENT_LEASE, TRUST_FILE
from concordat.statements import PublicKey
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.keys import trust_configmap
from concordat_operator.sites import plan
from concordat_operator.sites.quarantine import quarantined, remedy


class SiteReconciler:
    """Decides whether a site is accepted and present."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._published: str | None = None

    async def __call__(self, key: Key) -> Result:
        """Look at one site; look again in 20 seconds."""
        hub = self._hub
        site = hub.cache.get(Site, *key)
        if site is not None and site.metadata.deletion_timestamp is None:
            status = plan.status(site, await self._heard(key[0]), await self._quarantined(site), hub.clock.now())
            await write_status(hub.cluster, site, status, FIELD_MANAGER, plan.CONDITIONS)
        await self.publish_trust()
        return Result() if site is None else Result(requeue_after=plan.REQUEUE_SECONDS)

    async def publish_trust(self) -> None:
        """Publish the hub's keys and those of the accepted evaluators, when they changed."""
        hub = self._hub
        keys = {
            site.metadata.name: PublicKey.from_pem(site.status.accepted_key.public_key)
            for site in hub.cache.list(Site)
            if site.spec.role is Role.EVALUATOR and site.status.accepted_key is not None
        }
        wanted = trust_configmap(hub.settings.namespace, hub.keys.trust(keys))
        text = wanted["data"][TRUST_FILE]
        if text != self._published:
            await hub.cluster.apply(wanted, FIELD_MANAGER)
            self._published = text

    async def _quarantined(self, site: Site) -> str | None:
        namespace, name = self._hub.settings.namespace, site.metadata.name
        why = (await quarantined(self._hub.cluster, namespace)).get(name)
        if why is None:
            return None
        return f"{why} The site is not asked until a hub admin runs: {remedy(namespace, name)}"[:1024]

    async def _heard(self, namespace: str) -> datetime | None:
        """Return when the agent renewed its Lease; None: never, or the site has withdrawn the hub's right to look."""
        try:
            lease = await self._hub.cluster.get(LEASE, namespace, AGENT_LEASE)
        except (NotFound, Forbidden):
            return None
        renewed = (lease.get("spec") or {}).get("renewTime")
        return datetime.fromisoformat(renewed) if renewed else None
