"""Look at a whole federation: for the invariants, and for what may grow."""

from __future__ import annotations

import asyncio

from bench.federation.operator import HUB
from bench.federation.world import World
from bench.machine import stored_bytes
from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import JOB, POD
from concordat.controller.kinds import EVENT, KindLike
from tests.support.invariants import World as Objects
from tests.support.invariants import broken

_TIDY_SECONDS = 60


class Remembered(RegistryStore):
    """A connection to the registry that reads each file once: those of earlier rounds are asked for after every one."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._files: dict[tuple[str, str], bytes] = {}

    async def read(self, ref: ArtifactRef, name: str, limit: int = 16 << 20) -> bytes:
        """Return the file, as RegistryStore does."""
        if (ref.digest, name) not in self._files:
            self._files[ref.digest, name] = await super().read(ref, name, limit)
        return self._files[ref.digest, name]


async def wrong(world: World, registry: Remembered) -> list[str]:
    """Return what does not hold and is not put right within a minute: what a round leaves is removed in time."""
    found: list[str] = []
    for _ in range(_TIDY_SECONDS):
        objects = Objects(
            HUB,
            rounds=[FederationRound.model_validate(obj) for obj in await world.admin.list(FederationRound)],
            updates=[Update.model_validate(obj) for obj in await world.admin.list(Update)],
            releases=[Release.model_validate(obj) for obj in await world.admin.list(Release)],
            sites=[Site.model_validate(obj) for obj in await world.admin.list(Site)],
        )
        if not (found := await broken(objects, registry, world.trust)):
            break
        await asyncio.sleep(1)
    return found


async def sample(world: World) -> dict[str, float]:
    """Return what may grow."""
    usage = world.operator.usage()
    kinds: dict[str, KindLike] = {
        "rounds": FederationRound,
        "updates": Update,
        "releases": Release,
        "jobs": JOB,
        "pods": POD,
        "events": EVENT,
    }
    return {
        "operator's memory, MiB": usage.rss_mib,
        "operator's open files": float(usage.descriptors),
        "etcd, compacted, KiB": await world.control_plane.compacted_bytes() / 1024,
        "registry, KiB": await asyncio.to_thread(world.registry.bytes) / 1024,
        "workspaces, KiB": await asyncio.to_thread(stored_bytes, world.folder / "sites") / 1024,
        **{name: float(len(await world.admin.list(kind))) for name, kind in kinds.items()},
    }
