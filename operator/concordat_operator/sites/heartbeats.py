"""The agents' heartbeats, by the hub's own clock: how long ago each agent's Lease was last seen to change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from concordat.controller import LEASE, Cache, Clock, KindLike, Obj
from concordat.protocol.locations import AGENT_LEASE
from concordat_operator.sites.plan import HEARTBEAT_TIMEOUT

_LEAST_SEEN, _MOST_SEEN = 3, 5


@dataclass(frozen=True)
class Heartbeat:
    """An agent's last sign of life, as this process saw it."""

    renewed: str
    """The renewTime that the agent wrote."""
    heard: float
    """When it was seen: the hub's monotonic time, in seconds."""
    at: datetime
    """When it was seen: the hub's wall-clock time."""
    fresh: bool
    """Whether the Lease was seen to change; False where it was only found, as at the start of this process."""

    ahead: tuple[timedelta, ...] = ()
    """How far the agent's clock seemed ahead of the hub's in the last heartbeats that were seen to arrive."""

    @property
    def skew(self) -> timedelta:
        """Return how far the agent's clock is ahead of the hub's; negative if it is behind.

        A heartbeat that took long to arrive makes the clock seem behind, so the one that took least is right, of at
        least three: one that was late by itself says nothing.
        """
        return max(self.ahead) if len(self.ahead) >= _LEAST_SEEN else timedelta(0)


class Heartbeats:
    """What this process has seen of all agents' Leases."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._last: dict[str, Heartbeat | None] = {}
        """By namespace; None where there was no Lease."""
        self._latest = clock.monotonic()
        cache.subscribe(self._changed)

    def of(self, namespace: str) -> Heartbeat | None:
        """Return the last sign of life of a namespace's agent; None if there never was one."""
        self._look(namespace, self._cache.get(LEASE, namespace, AGENT_LEASE))
        return self._last[namespace]

    def silence(self, namespace: str) -> timedelta:
        """Return for how long a namespace's agent has been silent, as far as this process can tell."""
        heartbeat = self._last.get(namespace)
        return timedelta(seconds=self._clock.monotonic() - heartbeat.heard if heartbeat is not None else 0)

    def _changed(self, kind: KindLike, _: Obj | None, lease: Obj | None) -> None:
        if kind == LEASE and lease is not None and lease["metadata"]["name"] == AGENT_LEASE:
            self._look(lease["metadata"]["namespace"], lease)

    def _look(self, namespace: str, lease: dict[str, Any] | None) -> None:
        renewed = ((lease or {}).get("spec") or {}).get("renewTime")
        known = self._last.get(namespace)
        if renewed is None:
            self._last[namespace] = None
        elif known is None or known.renewed != renewed:
            # What this process has not seen before may be old; what it saw absent, or otherwise, is new.
            fresh = namespace in self._last
            if fresh:
                self._end_outage()
            at, ahead = self._clock.now(), known.ahead if known is not None else ()
            if fresh:
                ahead = (*ahead, datetime.fromisoformat(renewed) - at)[-_MOST_SEEN:]
            self._last[namespace] = Heartbeat(renewed, self._clock.monotonic(), at, fresh, ahead)

    def _end_outage(self) -> None:
        """Begin anew where nobody at all was heard for a while: then it was this process that could not hear."""
        now = self._clock.monotonic()
        if now - self._latest > HEARTBEAT_TIMEOUT.total_seconds():
            self._last = {
                namespace: replace(known, heard=now, fresh=False) if known is not None else None
                for namespace, known in self._last.items()
            }
        self._latest = now
