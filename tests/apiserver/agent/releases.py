"""Steps of the agent's Release flow, for its tests."""

from __future__ import annotations

import json
from typing import Any

from concordat.api import Condition, Release, Site
from concordat.jobs import evaluation_job, is_suspended
from concordat.protocol import artifact_types as types
from concordat.statements import open_bundle
from concordat.statements.summary import Summary, read_summary
from concordat_agent.agent import Agent
from concordat_agent.releases.reconcile import ReleaseReconciler
from tests.apiserver.agent.world import World
from tests.support.presence import present


def measured(parent: int = 500_000, candidate: int = 900_000, champion: int | None = None) -> dict[str, bytes]:
    """Return the files that the evaluation Job leaves; accuracies in parts per million."""
    figures = {"parent": parent, "candidate": candidate, **({"champion": champion} if champion is not None else {})}
    models = {
        name: {"ppm": ppm, "lowPpm": max(ppm - 30_000, 0), "highPpm": min(ppm + 30_000, 1_000_000)}
        for name, ppm in figures.items()
    }
    evidence = {
        "schema": "concordat.dev/evaluation-evidence/v1",
        "examples": 359,
        "models": models,
        "isolation": "verified",
    }
    return {"evaluation.json": json.dumps(evidence).encode()}


async def step(world: World, agent: Agent, name: str) -> Release:
    await ReleaseReconciler(agent)((world.site, name))
    return world.get(Release, name)


def said(world: World, name: str, type_: str) -> Condition:
    return present(world.condition(Release, name, type_))


async def staged(world: World, agent: Agent, name: str) -> dict[str, Any]:
    """Stage a copy; returns the manifest of its Job."""
    await step(world, agent, name)
    shown = said(world, name, "Staged")
    assert shown.is_true, shown.message
    release, site = world.get(Release, name), world.get(Site, world.site)
    return evaluation_job(release, site)


async def run(world: World, agent: Agent, manifest: dict[str, Any], *, failed: str | None = None) -> None:
    """Propose the Job, let the agent admit it, and end it."""
    name = manifest["metadata"]["name"]
    await world.propose(manifest)
    await step(world, agent, name)
    assert not is_suspended(world.job(name))
    world.end_job(name, failed=failed)


async def judged(world: World, agent: Agent, name: str, **figures: Any) -> Release:
    """Stage a copy, run its Job, decide."""
    await run(world, agent, await staged(world, agent, name))
    world.leave(name, measured(**figures))
    return await step(world, agent, name)


async def decision(world: World, release: Release) -> Summary:
    """Read the statement that the agent signed, as somebody else does."""
    assert release.status.decision is not None
    data = await world.registry.read(present(release.status.decision).statement, types.STATEMENT_FILE)
    return read_summary(open_bundle(data, [world.key.public]))
