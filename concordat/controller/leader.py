"""One of two replicas acts: a Lease, taken over only after its holder was silent for its whole duration.

Clocks are not compared between machines: a holder counts as silent when this process has seen no change of
the Lease for `duration` seconds of its own monotonic clock (as client-go does it). A holder that cannot renew
stops before anyone else may start. One that stood still for longer asks once: the Lease tells whether it was replaced.
What still slips through is stopped by resourceVersion and UID preconditions.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass, field
from typing import Any

from concordat.controller.client import Cluster
from concordat.controller.clock import Clock
from concordat.controller.errors import AlreadyExists, ApiError, Conflict, NotFound
from concordat.controller.kinds import LEASE
from concordat.controller.logs import fields

log = logging.getLogger(__name__)


def default_identity() -> str:
    """Return the pod's name, or host and process id outside of a pod."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True)
class LeaderConfig:
    """Which Lease, who we are, and the times in seconds."""

    namespace: str
    name: str
    identity: str = field(default_factory=default_identity)
    duration: float = 13.0
    """How long others wait after the holder's last sign of life; whole seconds."""
    renew_deadline: float = 10.0
    """How long the holder tries to renew before it gives up; less than duration."""
    retry: float = 2.0
    """Between two tries."""

    def __post_init__(self) -> None:
        if not self.retry < self.renew_deadline < self.duration - self.retry:
            raise ValueError(
                f"retry {self.retry}, renew_deadline {self.renew_deadline} and duration {self.duration} "
                "must increase in this order, and duration exceed the other two together"
            )


class LeadershipLost(Exception):
    """The Lease could not be renewed: whoever acts has to stop at once."""


class Leader:
    """The election, seen from one candidate."""

    def __init__(self, cluster: Cluster, config: LeaderConfig, clock: Clock) -> None:
        self._cluster = cluster
        self._config = config
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        self._held: dict[str, Any] | None = None
        self._acquired = 0.0
        """When the request was sent that took the Lease."""

    async def acquire(self) -> None:
        """Wait until this candidate holds the Lease. Errors of the API server are logged and tried again."""
        log.info("standing by", extra=fields(lease=self._config.name, identity=self._config.identity))
        while True:
            self._acquired = _now()
            if await self._try():
                break
            await asyncio.sleep(self._config.retry)
        log.info("leading", extra=fields(lease=self._config.name, identity=self._config.identity))

    async def hold(self) -> None:
        """Renew until it fails; then raise LeadershipLost. Never returns."""
        # Others count from when the API server got our renewal, which is not before we sent it.
        last = self._acquired
        while True:
            await asyncio.sleep(self._config.retry)
            sent = _now()
            remaining = last + self._config.renew_deadline - sent
            try:
                # After a standstill of the process nothing remains, though nobody may have taken the Lease.
                async with asyncio.timeout(max(self._config.retry, remaining)):
                    renewed = await self._try()
            except TimeoutError:
                renewed = False
            if renewed:
                last = sent
            elif self._held is None or _now() - last >= self._config.renew_deadline:
                lease, silent = f"{self._config.namespace}/{self._config.name}", _now() - last
                raise LeadershipLost(f"Lease {lease} was not renewed for {silent:.0f} s")

    async def release(self) -> None:
        """Give the Lease back, so that the next candidate need not wait. Does nothing if it is not held."""
        held, self._held = self._held, None
        if held is None:
            return
        try:
            await self._cluster.replace({**held, "spec": {**held["spec"], "holderIdentity": ""}})
        except ApiError as error:
            log.info("lease not released", extra=fields(error=str(error)))

    async def _try(self) -> bool:
        """Try once to take or renew the Lease."""
        try:
            self._held = await self._step()
        except (Conflict, AlreadyExists):
            # Someone else wrote it; whether they hold it is seen in the next attempt.
            return False
        except ApiError as error:
            log.warning("lease attempt failed", extra=fields(lease=self._config.name, error=str(error)))
            return False
        return self._held is not None

    async def _step(self) -> dict[str, Any] | None:
        config = self._config
        try:
            lease = await self._cluster.get(LEASE, config.namespace, config.name)
        except NotFound:
            return await self._cluster.create(
                {
                    "apiVersion": LEASE.api_version,
                    "kind": LEASE.kind,
                    "metadata": {"name": config.name, "namespace": config.namespace},
                    "spec": self._spec({}),
                }
            )
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity", "")
        if holder not in ("", config.identity):
            version = lease["metadata"]["resourceVersion"]
            if version != self._seen[0]:
                self._seen = (version, _now())
            if _now() - self._seen[1] < float(spec.get("leaseDurationSeconds", config.duration)):
                return None
        return await self._cluster.replace({**lease, "spec": self._spec(spec)})

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        ours = old.get("holderIdentity") == self._config.identity
        return {
            "holderIdentity": self._config.identity,
            "leaseDurationSeconds": int(self._config.duration),
            "acquireTime": old["acquireTime"] if ours else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if ours else 1),
        }


def _now() -> float:
    return asyncio.get_running_loop().time()
