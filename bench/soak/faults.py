"""Faults for a round, one at a time. Each ends when its coroutine does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.federation.operator import HUB
from bench.federation.world import World
from concordat.api import Update
from concordat.controller import GVK, JOB, POD, NotFound

ROLE_BINDING = GVK("rbac.authorization.k8s.io/v1", "RoleBinding")
_OUTAGE_SECONDS = 3.0
_OPERATOR = "concordat-operator"

Fault = Callable[[World, str, str], Awaitable[None]]
"""Called with the name of a round in progress, and of one of its sites."""


async def nothing(world: World, round_: str, site: str) -> None:
    """Let the round be."""


async def kill_operator(world: World, round_: str, site: str) -> None:
    """Kill the operator; it is started again at once."""
    world.operator.kill()
    world.operator.start()


async def delete_job(world: World, round_: str, site: str) -> None:
    """Delete one of the site's Jobs, or the aggregator's."""
    jobs = [j for j in world.cache.list(JOB) if j["metadata"]["namespace"] in (site, HUB)]
    if jobs:
        metadata = max(jobs, key=lambda j: (j["metadata"]["creationTimestamp"], j["metadata"]["namespace"]))["metadata"]
        await world.admin.delete(JOB, metadata["namespace"], metadata["name"], metadata["uid"])


async def delete_update(world: World, round_: str, site: str) -> None:
    """Delete the site's Update."""
    for update in world.cache.list(Update, site):
        if update.spec.round_ref.name == round_:
            await world.admin.delete(Update, site, update.metadata.name, update.metadata.uid)


async def delete_pods(world: World, round_: str, site: str) -> None:
    """Delete the pods of the hub's Jobs, and with them what they said."""
    for pod in await world.admin.list(POD, HUB):
        await world.admin.delete(POD, HUB, pod["metadata"]["name"])


async def withdraw_rights(world: World, round_: str, site: str) -> None:
    """Take the operator's rights in the site's namespace away for a while."""
    try:
        binding = await world.admin.get(ROLE_BINDING, site, _OPERATOR)
    except NotFound:
        return
    await world.admin.delete(ROLE_BINDING, site, _OPERATOR)
    await asyncio.sleep(_OUTAGE_SECONDS)
    kept = {k: v for k, v in binding["metadata"].items() if k in ("name", "namespace", "labels")}
    await world.admin.create({**binding, "metadata": kept})


async def stop_registry(world: World, round_: str, site: str) -> None:
    """Stop the registry for a few seconds."""
    await asyncio.to_thread(world.registry.stop)
    await asyncio.sleep(_OUTAGE_SECONDS)
    world.registry.start()


async def restart_api_server(world: World, round_: str, site: str) -> None:
    """Kill the API server and start it again."""
    world.control_plane.restart("kube-apiserver")


async def restart_etcd(world: World, round_: str, site: str) -> None:
    """Kill etcd and start it again."""
    world.control_plane.restart("etcd")


async def silent_site(world: World, round_: str, site: str) -> None:
    """Let the site's agent do nothing for this round."""
    world.sites.silent.add(site)


async def garbage(world: World, round_: str, site: str) -> None:
    """Let the site's training leave files that are no adapter."""
    world.nodes.garbage.add(site)


FAULTS: dict[str, Fault] = {
    fault.__name__.replace("_", " "): fault
    for fault in (
        nothing,
        kill_operator,
        delete_job,
        delete_update,
        delete_pods,
        withdraw_rights,
        stop_registry,
        restart_api_server,
        restart_etcd,
        silent_site,
        garbage,
    )
}


def heal(world: World) -> None:
    """End what a fault left for the length of its round."""
    world.sites.silent.clear()
    world.nodes.garbage.clear()
