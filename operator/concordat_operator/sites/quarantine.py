"""Which sites are not asked: a ConfigMap of the hub, so that no site can take itself out, and any hub admin can.

A key `<site>.<round>` is a strike: that round found the site's update suspected of poisoning. One alone is no proof,
for one honest update in thousands looks like it. Two within `LASTS` put the site into quarantine until the older one is
that old. A key `<site>` is an admin's own word, and stands until it is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from concordat.controller import Clock, Cluster
from concordat.screening.strikes import LASTS, STRIKES
from concordat_operator.records import record, records
from concordat_operator.text import until

QUARANTINE_NAME = "concordat-quarantine"
_READ_SECONDS = 10.0


@dataclass(frozen=True)
class Quarantine:
    """A site is not asked."""

    why: str
    """A sentence."""
    keys: tuple[str, ...]
    """The ConfigMap's keys that it rests on: without them it ends."""
    ends: datetime | None
    """When it ends by itself; None: never."""


def in_quarantine(found: Mapping[str, str], now: datetime) -> dict[str, Quarantine]:
    """Return the sites in quarantine by name, from the ConfigMap's data."""
    sites: dict[str, dict[str, str]] = {}
    for key, value in sorted(found.items()):
        sites.setdefault(key.partition(".")[0], {})[key] = value
    judged = {site: _judge(site, mine, now) for site, mine in sites.items()}
    return {site: quarantine for site, quarantine in judged.items() if quarantine is not None}


async def quarantined(cluster: Cluster, namespace: str, now: datetime) -> dict[str, Quarantine]:
    """Return the sites in quarantine by name."""
    return in_quarantine(await records(cluster, namespace, QUARANTINE_NAME), now)


class Quarantined:
    """The sites in quarantine, read at most every ten seconds for all sites together."""

    def __init__(self, cluster: Cluster, namespace: str, clock: Clock) -> None:
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self._sites: dict[str, Quarantine] = {}
        self._read: float | None = None
        self._lock = asyncio.Lock()

    async def of(self, site: str) -> Quarantine | None:
        """Return a site's quarantine; None if it has none."""
        async with self._lock:
            if self._read is None or self._clock.monotonic() - self._read >= _READ_SECONDS:
                self._sites = await quarantined(self._cluster, self._namespace, self._clock.now())
                self._read = self._clock.monotonic()
        return self._sites.get(site)


async def strike(cluster: Cluster, namespace: str, site: str, round_uid: str, at: datetime, why: str) -> None:
    """Note that a round found a site's update suspected. The same round's is one strike, however often it is noted."""
    value = f"{at.isoformat(timespec='seconds')} {why}"
    await record(cluster, namespace, QUARANTINE_NAME, f"{site}.{round_uid}", value)


def remedy(namespace: str, quarantine: Quarantine) -> str:
    """Return the command that ends a quarantine."""
    patch = ",".join(f'{{"op":"remove","path":"/data/{key}"}}' for key in quarantine.keys)
    return f"kubectl -n {namespace} patch configmap {QUARANTINE_NAME} --type=json -p '[{patch}]'"


def _judge(site: str, mine: Mapping[str, str], now: datetime) -> Quarantine | None:
    if site in mine:
        return Quarantine(mine[site], tuple(mine), None)
    # What is no strike of ours was written by hand: it never gets old.
    times = {key: _time(value) for key, value in mine.items()}
    valid = [key for key, at in times.items() if at is None or now < at + LASTS]
    if len(valid) < STRIKES:
        return None
    newest = sorted(valid, key=lambda key: times[key] or datetime.max.replace(tzinfo=now.tzinfo), reverse=True)
    second = times[newest[STRIKES - 1]]
    ends = None if second is None else second + LASTS
    said = "; ".join(mine[key].partition(" ")[2] for key in newest[:STRIKES])
    limit = "" if ends is None else f" It ends at {until(ends)}."
    return Quarantine(
        f"Suspected of poisoning {len(valid)} times in {LASTS.days} days: {said}.{limit}", tuple(valid), ends
    )


def _time(value: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(value.partition(" ")[0])
    except ValueError:
        return None
    return at if at.tzinfo is not None else None
