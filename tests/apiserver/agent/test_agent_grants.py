"""The grants that an agent needs: before it lets a Job run, and before it sends what the Job left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from concordat.api import Update
from concordat.artifacts import RegistryUnavailable
from concordat.controller import Conflict
from concordat.jobs import is_suspended
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey
from concordat.statements.grant import Purpose, open_grant
from concordat_agent.agent import Agent
from concordat_agent.gateway import GrantRefused, StaleNonce
from tests.apiserver.agent.updates import candidate, evidence, run, said, staged, step
from tests.apiserver.agent.world import World

OTHER = "sha256:" + "9" * 64


async def trained(world: World, agent: Agent) -> str:
    """An Update whose Job has left a candidate."""
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    return name


async def test_an_update_is_sent_with_the_grant_to_send_it(world: World) -> None:
    agent = world.agent()
    name = await trained(world, agent)
    update = await step(world, agent, name)
    training, sending = (open_grant(bundle, [world.gateway_key.public]) for bundle in world.gateway.given)
    assert (training.purpose, sending.purpose) == (Purpose.TRAIN, Purpose.SEND)
    assert sending.training == training.id
    assert update.status.submission is not None
    beside = await world.registry.read(update.status.submission.statement, types.GRANT_FILE)
    assert beside == world.gateway.given[1]
    files = await world.registry.files(update.status.submission.artifact)
    assert sending.update == files[types.DELTA_FILE].digest


@pytest.mark.attack("a Job let run without a grant", "agent, before the Job", "GrantRefused")
async def test_without_a_grant_no_job_runs(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.gateway.refusal = GrantRefused("the Membership of site-a is suspended")
    await world.propose(manifest)
    await step(world, agent, name)
    assert is_suspended(world.job(name))
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.is_pending, submitted.reason) == (True, False, "GrantRefused")
    assert submitted.message == "the Membership of site-a is suspended; the Job was not let run."


async def test_without_a_grant_nothing_is_sent(world: World) -> None:
    agent = world.agent()
    name = await trained(world, agent)
    world.gateway.refusal = GrantRefused("pod r1-x ran another image")
    update = await step(world, agent, name)
    assert said(world, name, "Submitted").reason == "GrantRefused"
    assert update.status.submission is None


async def test_a_gateway_that_is_away_is_waited_for(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.gateway.refusal = RegistryUnavailable("the hub's gateway gives no grant yet: not seen")
    await world.propose(manifest)
    await step(world, agent, name)
    assert is_suspended(world.job(name))
    submitted = said(world, name, "Submitted")
    assert (submitted.is_pending, submitted.reason) == (True, "RegistryUnavailable")
    world.gateway.refusal = None
    await step(world, agent, name)
    assert not is_suspended(world.job(name))


async def test_a_gateway_that_was_restarted_is_asked_for_another_nonce(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.gateway.refusal = StaleNonce("the nonce was not given by this process")
    await world.propose(manifest)
    await step(world, agent, name)
    assert said(world, name, "Submitted").is_pending
    assert "takes none of its own nonces" in said(world, name, "Submitted").message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"job_uid": "another"}, "the gateway's grant is for Job another, asked was"),
        ({"site": "site-b"}, "the gateway's grant is for site site-b"),
        ({"contract": OTHER}, "the gateway's grant is for contract"),
        ({"key": "SHA256:x"}, "the gateway's grant is for key SHA256:x"),
        ({"nonce": OTHER}, "the gateway's grant is for nonce"),
        ({"purpose": Purpose.SEND, "update": OTHER, "training": OTHER}, "the gateway's grant is for purpose send"),
    ],
)
async def test_a_grant_for_something_else_is_none(world: World, changes: dict[str, Any], says: str) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.gateway.changes |= changes
    await world.propose(manifest)
    await step(world, agent, name)
    assert is_suspended(world.job(name))
    assert says in said(world, name, "Submitted").message


@pytest.mark.attack("a grant by somebody else than the gateway", "agent", "GrantRefused")
async def test_a_grant_by_another_key_is_none(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.gateway._key = SigningKey.generate()
    await world.propose(manifest)
    await step(world, agent, name)
    assert is_suspended(world.job(name))
    assert "what the gateway gave does not hold" in said(world, name, "Submitted").message


async def test_a_grant_is_asked_for_once_though_the_agent_starts_again(world: World) -> None:
    agent = world.agent()
    name = await trained(world, agent)
    first = await step(world, agent, name)
    notes = sorted(file.name for file in Path(world.folder / "notes").iterdir())
    uid = world.get(Update, name).metadata.uid
    assert notes == [f"{uid}.{kind}.json" for kind in ("admission", "tosend", "totrain")]
    held = json.loads((world.folder / "notes" / f"{uid}.tosend.json").read_text())
    assert held["bundle"].encode() == world.gateway.given[1]
    again = world.agent()
    assert (await step(world, again, name)).status.submission == first.status.submission
    assert len(world.gateway.given) == 2


async def test_a_grant_to_train_that_has_ended_is_asked_for_again(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await world.propose(manifest)
    seen = world.job(name)
    await step(world, agent, name)
    world.clock.advance(31 * 60)
    world.cache.feed({**seen, "metadata": {**seen["metadata"], "resourceVersion": "999999999"}})
    with pytest.raises(Conflict):
        await step(world, agent, name)
    assert len(world.gateway.given) == 2
