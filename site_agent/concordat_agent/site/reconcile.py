"""The Site itself: heartbeat, what the agent says of itself, and the workspace kept tidy."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import concordat_agent
from concordat.api import Release, Site, Update
from concordat.api.site import AgentStatus
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.controller import LEASE, Clock, Key, Result, fields, write_status
from concordat.protocol.locations import AGENT_LEASE
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.metrics import CHAMPION_SEQUENCE
from concordat_agent.site import plan

log = logging.getLogger(__name__)

RENEW_SECONDS = 20
LEASE_SECONDS = 90


class SiteReconciler:
    """Keeps up the site's presence."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, key: Key) -> Result:
        """Renew the heartbeat, then bring status and workspace up to date; look again in 20 seconds."""
        agent = self._agent
        site = agent.cache.get(Site, *key)
        if site is None or site.metadata.name != agent.site:
            return Result()
        await agent.cluster.apply(lease(agent.site, agent.clock), FIELD_MANAGER)
        agent_status = AgentStatus(
            public_key=agent.signer.public_key.to_pem(),
            policy_digest=agent.policy.digest,
            version=concordat_agent.VERSION,
        )
        champions = agent.champions.in_use()
        await write_status(
            agent.cluster, site, plan.status(site, agent_status, champions), FIELD_MANAGER, owned_conditions=()
        )
        for federation, champion in champions.items():
            CHAMPION_SEQUENCE.labels(federation).set(champion.sequence)
        await self._tidy(key[0])
        return Result(requeue_after=RENEW_SECONDS)

    async def _tidy(self, namespace: str) -> None:
        agent = self._agent
        updates, releases = agent.cache.list(Update, namespace), agent.cache.list(Release, namespace)
        try:
            # Without an await since the cache was read: no folder can be staged that `keep` does not know.
            agent.workspace.discard(plan.folders(updates, releases, agent.champions.all()))
            await asyncio.to_thread(agent.workspace.empty_trash)
        except OSError as error:
            # A heartbeat must not be lost over a folder that cannot be removed.
            log.warning("workspace not tidied", extra=fields(error=str(error)))


def lease(site: str, clock: Clock) -> dict[str, Any]:
    """Return the heartbeat: a Lease in the site's namespace, renewed now."""
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        # The hub watches the Leases with this label.
        "metadata": {"name": AGENT_LEASE, "namespace": site, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "spec": {
            "holderIdentity": site,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
        },
    }
