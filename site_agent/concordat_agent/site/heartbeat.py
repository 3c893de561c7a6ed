"""The heartbeat: a Lease renewed on a timer, whatever else the agent has to do; its answer tells the hub's time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from concordat.api import Site
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.controller import LEASE, Key, Result
from concordat.protocol.locations import AGENT_LEASE
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.hub_clock import write_time
from concordat_agent.metrics import CLOCK_SKEW

RENEW_SECONDS = 30
LEASE_SECONDS = 90


class Heartbeat:
    """Keeps up the site's Lease. Events wake it, but do not make it write."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._renewed: float | None = None

    async def __call__(self, key: Key) -> Result:
        """Renew the Lease if 30 seconds have passed since it was; look again in as many."""
        agent, clock = self._agent, self._agent.clock
        if key[1] != agent.site or agent.cache.get(Site, *key) is None:
            return Result()
        started = clock.elapsed()
        if self._renewed is not None and (left := RENEW_SECONDS - (started - self._renewed)) > 0:
            return Result(requeue_after=left)
        written = await agent.cluster.apply(lease(agent.site, clock.machine.now()), FIELD_MANAGER)
        self._renewed = started
        skew = clock.tell(write_time(written, FIELD_MANAGER) or clock.machine.now())
        CLOCK_SKEW.set(skew.total_seconds())
        return Result(requeue_after=RENEW_SECONDS)


def lease(site: str, now: datetime) -> dict[str, Any]:
    """Return the Lease in the site's namespace, renewed at `now` by the machine's clock, which shows how it goes."""
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        # The hub watches the Leases with this label.
        "metadata": {"name": AGENT_LEASE, "namespace": site, "labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        "spec": {
            "holderIdentity": site,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        },
    }
