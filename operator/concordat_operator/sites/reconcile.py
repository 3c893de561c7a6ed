"""A Site: say whether it is a member, follow its heartbeat, and publish whom sites may trust."""

from __future__ import annotations

import random
from datetime import timedelta

from concordat.api import ConditionType, Role, Site, is_true
from concordat.controller import Key, Result, write_status
from concordat.protocol.locations import TRUST_FILE
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.keys import trust_configmap
from concordat_operator.sites import plan
from concordat_operator.sites.heartbeats import Heartbeats
from concordat_operator.sites.quarantine import Quarantined, remedy

_PUBLISH_SECONDS = 600.0
_COMPARE_SECONDS = 10.0
"""Between two looks at what is published for the sake of a trainer; an evaluator's is looked at at once."""


class SiteReconciler:
    """Decides whether a site is accepted and present."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._heartbeats = Heartbeats(hub.cache, hub.clock)
        self._quarantined = Quarantined(hub.cluster, hub.settings.namespace, hub.clock)
        self._published: tuple[str, float] | None = None
        self._compared: float | None = None

    async def __call__(self, key: Key) -> Result:
        """Look at one site; look again when it may be lost. Heartbeats come by themselves."""
        hub = self._hub
        site = hub.cache.get(Site, *key)
        if site is not None and site.metadata.deletion_timestamp is None:
            quarantined, now = await self._why_quarantined(site), hub.clock.now()
            status = plan.status(site, hub.members.of(site, now), self._presence(site), quarantined, now)
            await write_status(hub.cluster, site, status, FIELD_MANAGER, plan.CONDITIONS)
        elapsed = hub.clock.monotonic()
        trainer = site is not None and site.spec.role is Role.TRAINER
        if not trainer or self._compared is None or elapsed - self._compared >= _COMPARE_SECONDS:
            self._compared = elapsed
            await self.publish_trust()
        if site is None:
            return Result()
        # When the agent would have been silent for too long, if it is not heard until then.
        left = (plan.HEARTBEAT_TIMEOUT - self._heartbeats.silence(site.metadata.namespace)).total_seconds()
        # Not all sites at once, as after a start.
        return Result(requeue_after=max(left, plan.REQUEUE_SECONDS) * random.uniform(1.0, 1.2))  # noqa: S311 - spreads load

    async def publish_trust(self) -> None:
        """Publish the hub's keys and those of the evaluators that are members, when they changed."""
        hub = self._hub
        evaluators = hub.members.evaluators(hub.clock.now())
        wanted = trust_configmap(hub.settings.namespace, hub.keys.trust(evaluators))
        text = wanted["data"][TRUST_FILE]
        now = hub.clock.monotonic()
        # Again after a while: somebody else may have written it, as another leader in the meantime.
        if self._published is None or self._published[0] != text or now - self._published[1] >= _PUBLISH_SECONDS:
            await hub.cluster.apply(wanted, FIELD_MANAGER)
            self._published = (text, now)

    async def _why_quarantined(self, site: Site) -> str | None:
        found = await self._quarantined.of(site.metadata.name)
        if found is None:
            return None
        end = f"A hub admin ends it: {remedy(self._hub.settings.namespace, found)}"
        return f"{found.why[: 1000 - len(end)]} {end}"[:1024]

    def _presence(self, site: Site) -> plan.Presence | None:
        namespace = site.metadata.namespace
        heartbeat = self._heartbeats.of(namespace)
        if heartbeat is None:
            return None
        silence = self._heartbeats.silence(namespace)
        silences = self._silences() if silence > plan.HEARTBEAT_TIMEOUT else ()
        return plan.Presence(silence, heartbeat.at, heartbeat.fresh, heartbeat.skew, silences)

    def _silences(self) -> tuple[timedelta, ...]:
        ready = [s for s in self._hub.cache.list(Site) if is_true(s.status.conditions, ConditionType.READY)]
        return tuple(self._heartbeats.silence(site.metadata.namespace) for site in ready)
