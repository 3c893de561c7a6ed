"""Steps of an Update that several files of tests take."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from concordat.api import Condition, Site, Update
from concordat.jobs import is_suspended, training_job
from concordat.protocol.contract import Contract
from concordat.tensors import write_tensors
from concordat_agent.agent import Agent
from concordat_agent.updates.reconcile import UpdateReconciler
from tests.apiserver.agent.world import World
from tests.support.presence import present

B = "vit.layer.0.lora_B.weight"


def evidence(**changes: Any) -> bytes:
    return json.dumps(
        {
            "schema": "concordat.dev/training-evidence/v1",
            "steps": 200,
            "examples": 280,
            "validationExamples": 70,
            "parentPpm": 500_000,
            "candidatePpm": 900_000,
            "isolation": "verified",
            **changes,
        }
    ).encode()


def candidate(world: World, value: float = 0.5, **changes: Any) -> bytes:
    return write_tensors({**world.parent, B: np.full((4, 2), value, np.float32), **changes})


async def step(world: World, agent: Agent, name: str) -> Update:
    await UpdateReconciler(agent)((world.site, name))
    return world.get(Update, name)


def said(world: World, name: str, type_: str) -> Condition:
    return present(world.condition(Update, name, type_))


async def staged(world: World, agent: Agent, **contract: Any) -> tuple[str, dict[str, Any]]:
    """A consented and staged Update, and the manifest of its Job."""
    await world.create_site()
    document = await world.contract(**contract)
    name = await world.request(document)
    await step(world, agent, name)
    update = await step(world, agent, name)
    assert said(world, name, "Staged").is_true
    site = world.get(Site, world.site)
    return name, training_job(Contract.model_validate(document), update, site)


async def run(world: World, agent: Agent, manifest: dict[str, Any], *, failed: str | None = None) -> None:
    """Propose the Job, let the agent admit it, and end it."""
    name = manifest["metadata"]["name"]
    await world.propose(manifest)
    await step(world, agent, name)
    assert not is_suspended(world.job(name))
    world.end_job(name, failed=failed)
