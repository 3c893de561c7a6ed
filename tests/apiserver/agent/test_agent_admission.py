"""Which Jobs an agent lets run, and of which it signs the result (security finding F1)."""

from __future__ import annotations

import pytest

from concordat.api import Update
from concordat.controller import JOB, Conflict
from concordat.jobs import is_suspended
from concordat.protocol import artifact_types as types
from concordat_agent.admission import admit
from tests.apiserver.agent.updates import candidate, evidence, run, said, staged, step
from tests.apiserver.agent.world import World


async def test_another_job_than_the_contracts_is_not_let_run(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.local/evil@sha256:" + "6" * 64
    await world.propose(manifest)
    await step(world, agent, name)
    assert is_suspended(world.job(name))
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, "JobNotAllowed")
    assert "containers[0].image" in submitted.message


@pytest.mark.attack("F1: a result that lay there before the Job ran", "agent, before the Job", "emptied")
async def test_a_job_that_ran_by_itself_is_not_answered(world: World) -> None:
    """Security finding F1: with a result that lies there already."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await world.propose({**manifest, "spec": {**manifest["spec"], "suspend": False}})
    world.end_job(name)
    update = await step(world, agent, name)
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, "JobNotAllowed")
    assert "without having been admitted" in submitted.message
    assert update.status.submission is None


@pytest.mark.attack("F1: a Job that the agent did not let run", "agent, after the Job", "JobNotAllowed")
async def test_what_lies_in_the_output_before_the_job_runs_is_not_its_result(world: World) -> None:
    """Security finding F1."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await run(world, agent, manifest)
    await step(world, agent, name)
    assert said(world, name, "Submitted").reason == "NoCandidate"


async def test_a_job_that_runs_already_keeps_its_output_folder(world: World) -> None:
    """The answer to the agent's patch was lost, and the watch is behind: it admits again what it admitted."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await world.propose(manifest)
    seen, update = world.job(name), world.get(Update, name)
    await step(world, agent, name)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    with pytest.raises(Conflict):
        await admit(agent, update, seen)
    world.end_job(name)
    await step(world, agent, name)
    assert said(world, name, "Submitted").is_true


@pytest.mark.attack("F1: a Job made again under the same name", "agent, after the Job", "JobNotAllowed")
async def test_a_job_made_again_has_to_be_admitted_again(world: World) -> None:
    """Security finding F1: the first one's result is not the second one's."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await world.cluster.delete(JOB, world.site, name)
    world.cache.remove(world.job(name))
    await world.propose({**manifest, "spec": {**manifest["spec"], "suspend": False}})
    world.end_job(name)
    await step(world, agent, name)
    assert said(world, name, "Submitted").reason == "JobNotAllowed"


@pytest.mark.parametrize("file", ["parent/adapter_model.safetensors", "task.json", "contract.json", "more"])
@pytest.mark.attack("F1: inputs changed under the Job", "agent, after the Job", "InputChanged")
async def test_inputs_that_changed_under_the_job_void_its_result(world: World, file: str) -> None:
    """Security finding F1: what was staged is hashed again."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    (world.folder / "work" / name / "in" / file).write_bytes(b"other")
    await step(world, agent, name)
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, "InputChanged")
    assert file in submitted.message


@pytest.mark.attack("F1: the base model changed under the Job", "agent, after the Job", "InputChanged")
async def test_a_base_that_changed_voids_the_result_and_is_fetched_anew(world: World) -> None:
    """Security finding F1: base packages are shared by all Jobs of the site."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    (base,) = (world.folder / "base").iterdir()
    (base / "package.json").write_bytes(b"[]")
    await step(world, agent, name)
    assert said(world, name, "Submitted").reason == "InputChanged"
    assert not base.exists()


async def test_a_policy_that_became_stricter_meanwhile_counts(world: World) -> None:
    """No decision rests on the condition Consented."""
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await step(world, world.agent(consent={"maxSteps": 1, "maxWallSeconds": 3600}), name)
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, "PolicyRefused")
    assert "exceeds this site's 1" in submitted.message
