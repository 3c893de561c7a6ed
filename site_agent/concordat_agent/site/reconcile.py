"""The Site itself: what the agent says of itself, and the workspace kept tidy."""

from __future__ import annotations

import asyncio
import logging

import concordat_agent
from concordat.api import Release, Role, Site, Update
from concordat.api.site import AgentStatus
from concordat.controller import Key, Result, fields, write_status
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.metrics import CHAMPION_SEQUENCE
from concordat_agent.site import plan

log = logging.getLogger(__name__)


class SiteReconciler:
    """Shows the agent in the Site's status, and removes what no living object needs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def __call__(self, key: Key) -> Result:
        """Bring status and workspace up to date."""
        agent = self._agent
        site = agent.cache.get(Site, *key)
        if site is None or site.metadata.name != agent.site:
            return Result()
        shown = agent.signer.keys.shown(agent.site, site.metadata.uid)
        agent_status = AgentStatus(
            key=shown[0],
            previous_key=shown[1] if len(shown) > 1 else None,
            policy_digest=agent.policy.digest,
            version=concordat_agent.VERSION,
        )
        # An evaluator uses none: it remembers what it approved.
        champions = agent.champions.in_use() if site.spec.role is Role.TRAINER else {}
        await write_status(
            agent.cluster, site, plan.status(site, agent_status, champions), FIELD_MANAGER, owned_conditions=()
        )
        for federation, champion in champions.items():
            CHAMPION_SEQUENCE.labels(federation).set(champion.sequence)
        await self._tidy(key[0])
        return Result()

    async def _tidy(self, namespace: str) -> None:
        agent = self._agent
        try:
            superfluous = agent.workspace.jobs() - self._needed(namespace)
            if superfluous:
                # The cache lacks what does not fit this version's schema, and its Job may run.
                living = [
                    obj["metadata"] for kind in (Update, Release) for obj in await agent.cluster.list(kind, namespace)
                ]
                # Without an await since the cache was read: no folder can be staged that it does not know.
                names = {metadata["name"] for metadata in living}
                agent.workspace.discard(superfluous.difference(names, self._needed(namespace)))
                cached = [*agent.cache.list(Update, namespace), *agent.cache.list(Release, namespace)]
                agent.notes.tidy({m["uid"] for m in living} | {obj.metadata.uid for obj in cached})
            await asyncio.to_thread(agent.workspace.empty_trash)
        except OSError as error:
            log.warning("workspace not tidied", extra=fields(error=str(error)))

    def _needed(self, namespace: str) -> set[str]:
        cache = self._agent.cache
        return plan.folders(
            (update.metadata.name for update in cache.list(Update, namespace)),
            (release.metadata.name for release in cache.list(Release, namespace)),
            self._agent.champions.all(),
        )
