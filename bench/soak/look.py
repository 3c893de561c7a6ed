"""Look at a whole federation: for the invariants, and for what may grow."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.federation.operator import HUB
from bench.federation.world import World
from concordat.api import FederationRound, Release, Site, Update
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.artifacts import ArtifactNotFound
from concordat.controller import JOB, POD
from concordat.controller.kinds import EVENT, KindLike
from tests.support.invariants import Observed, files_needed

_MINE = {LABEL_MANAGED_BY: MANAGED_BY}


async def observe(world: World, known: dict[tuple[str, str], bytes], champions: dict[str, int]) -> Observed:
    """Return the federation as the API server and the registry have it now; `known` keeps the files read before."""
    admin = world.admin
    observed = Observed(
        hub=HUB,
        trust=world.trust,
        rounds=[FederationRound.model_validate(obj) for obj in await admin.list(FederationRound)],
        updates=[Update.model_validate(obj) for obj in await admin.list(Update)],
        releases=[Release.model_validate(obj) for obj in await admin.list(Release)],
        sites=[Site.model_validate(obj) for obj in await admin.list(Site)],
        jobs=await admin.list(JOB, labels=_MINE),
        files=known,
        champions=champions,
    )
    needed = {(ref.digest, name): ref for ref, name in files_needed(observed)}
    for gone in known.keys() - needed.keys():
        del known[gone]
    for (digest, name), ref in needed.items():
        if (digest, name) not in known:
            try:
                known[digest, name] = await world.store.read(ref, name)
            except ArtifactNotFound:
                continue
    return observed


async def sample(world: World) -> dict[str, float]:
    """Return what may grow."""
    usage = world.operator.usage()
    kinds: dict[str, KindLike] = {
        "rounds": FederationRound,
        "updates": Update,
        "releases": Release,
        "jobs": JOB,
        "pods": POD,
    }
    counts = {name: float(len(await world.admin.list(kind))) for name, kind in kinds.items()}
    return {
        "operator's memory, MiB": usage.rss_mib,
        "operator's open files": float(usage.descriptors),
        "etcd, compacted, KiB": await world.control_plane.compacted_bytes() / 1024,
        "registry, KiB": await asyncio.to_thread(world.registry.bytes) / 1024,
        "workspaces, KiB": await asyncio.to_thread(_bytes, world.folder / "sites") / 1024,
        "events": float(len(await world.admin.list(EVENT))),
        **counts,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
