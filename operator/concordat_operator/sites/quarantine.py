"""Which sites are not asked: a ConfigMap of the hub, so that no site can take itself out, and any hub admin can.

One key per site, with a sentence why. Removing the key ends the quarantine.
"""

from __future__ import annotations

import asyncio

from concordat.controller import Clock, Cluster
from concordat_operator.records import record, records

QUARANTINE_NAME = "concordat-quarantine"
_READ_SECONDS = 10.0


async def quarantined(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return the quarantined sites, each with the reason."""
    return await records(cluster, namespace, QUARANTINE_NAME)


class Quarantined:
    """The quarantined sites, read at most every ten seconds for all sites together."""

    def __init__(self, cluster: Cluster, namespace: str, clock: Clock) -> None:
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self._sites: dict[str, str] = {}
        self._read: float | None = None
        self._lock = asyncio.Lock()

    async def reason(self, site: str) -> str | None:
        """Return why a site is quarantined; None if it is not."""
        async with self._lock:
            if self._read is None or self._clock.monotonic() - self._read >= _READ_SECONDS:
                self._sites = await quarantined(self._cluster, self._namespace)
                self._read = self._clock.monotonic()
        return self._sites.get(site)


async def quarantine(cluster: Cluster, namespace: str, site: str, why: str) -> None:
    """Add a site to the quarantined ones."""
    await record(cluster, namespace, QUARANTINE_NAME, site, why)


def remedy(namespace: str, site: str) -> str:
    """Return the command that ends a quarantine."""
    patch = f'[{{"op":"remove","path":"/data/{site}"}}]'
    return f"kubectl -n {namespace} patch configmap {QUARANTINE_NAME} --type=json -p '{patch}'"
