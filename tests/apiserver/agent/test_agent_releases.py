"""The agent's Release flow: what it verifies, adopts, rejects and signs, as a site."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from concordat.api import ConditionSet, ConditionType, Reason, Release, Site
from concordat.jobs import evaluation_job, is_suspended
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey, names
from concordat_agent.agent import FIELD_MANAGER
from concordat_agent.site.reconcile import SiteReconciler
from tests.apiserver.agent.releases import decision, judged, measured, run, said, staged, step
from tests.apiserver.agent.world import B, World
from tests.support.presence import present

STRANGER = SigningKey.generate()
OTHER_IMAGE = {"image": "registry.local/other@sha256:" + "0" * 64}


async def test_a_release_is_verified_measured_adopted_and_signed(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    manifest = await staged(world, agent, name)
    folder = world.folder / "work" / name / "in"
    assert json.loads((folder / "task.json").read_bytes()) == {
        "kind": "evaluate",
        "confidencePpm": 950_000,
        "models": ["parent", "candidate"],
    }
    assert all((folder / model / types.ADAPTER_FILE).is_file() for model in ("parent", "candidate"))
    assert not (folder / "champion").exists()

    await run(world, agent, manifest)
    world.leave(name, measured())
    release = await step(world, agent, name)

    assert said(world, name, "Adopted").is_true
    signed = await decision(world, release)
    assert (signed.passed, signed.site, signed.resource) == (True, world.site, "concordat:release/digits/1")
    assert names.ADOPTED in signed.levels
    labels = {"federation": "digits", "phase": "evaluation", "model": "candidate"}
    assert REGISTRY.get_sample_value("concordat_agent_local_quality_ratio", labels) == 0.9
    assert present(release.status.decision).evaluation.candidate_ppm == 900_000
    await SiteReconciler(agent)((world.site, world.site))
    champion = present(world.get(Site, world.site).status.champion)
    assert (champion.release, champion.sequence, champion.quality_ppm) == (name, 1, 900_000)
    writes = world.writes
    await step(world, agent, name)
    assert world.writes == writes


async def test_a_restart_between_adoption_and_status_write_changes_nothing(world: World) -> None:
    await world.create_site()
    name, agent = await world.offer(), world.agent()
    await run(world, agent, await staged(world, agent, name))
    world.leave(name, measured())
    before = world.get(Release, name)
    first = await step(world, world.agent(), name)
    # As if the process had been killed before it wrote the status.
    await world.put_back(before)
    world.clock.advance(1234)
    second = await step(world, world.agent(), name)
    assert second.status.decision == first.status.decision
    assert said(world, name, "Adopted").is_true


async def test_the_next_release_is_compared_with_the_champion(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await judged(world, agent, first)
    # Made from another parent than the champion, as after a rollback: all three are measured.
    second = await world.offer(2, value=0.7)
    manifest = await staged(world, agent, second)
    folder = world.folder / "work" / second / "in"
    assert json.loads((folder / "task.json").read_bytes())["models"] == ["parent", "candidate", "champion"]
    assert (folder / "champion" / types.ADAPTER_FILE).is_file()
    await run(world, agent, manifest)
    world.leave(second, measured(champion=920_000, candidate=930_000))
    await step(world, agent, second)
    adopted = said(world, second, "Adopted")
    assert adopted.is_true
    assert f"92.00 % with {first}, in use now" in adopted.message
    # The one before is history, and costs no write: the Site names the champion.
    writes = world.writes
    await step(world, agent, first)
    assert world.writes == writes
    assert present(agent.champions.current("digits")).release == second


async def test_a_release_from_the_champion_measures_it_once(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await judged(world, agent, first)
    champion = world.get(Release, first).spec.adapter
    terms = await world.contract(parent=champion, parentRelease={"name": first, "sequence": 1})
    second = await world.offer(2, value=0.9, contract=terms)
    release = await judged(world, agent, second, parent=900_000, candidate=890_000)
    task = json.loads((world.folder / "work" / second / "in" / "task.json").read_bytes())
    assert task["models"] == ["parent", "candidate"]
    assert said(world, second, "Adopted").is_true
    assert (await decision(world, release)).passed


async def test_a_regression_is_rejected_with_a_signature_and_the_champion_stays(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await judged(world, agent, first)
    second = await world.offer(2, value=0.7)
    release = await judged(world, agent, second, candidate=870_000, champion=900_000)
    adopted = said(world, second, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "Regression")
    assert not (await decision(world, release)).passed
    assert present(agent.champions.current("digits")).release == first


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"adoption": {"mode": "Never"}}, "adoption.mode is Never"),
        ({"judging": {"minQualityPpm": 950_000}}, "below judging.minQualityPpm 950000"),
    ],
)
@pytest.mark.attack("F12: a release below the site's own floor", "agent", "PolicyRejected")
async def test_the_sites_policy_rejects(world: World, rules: dict[str, Any], says: str) -> None:
    """Security finding F12: also the first release, which is compared with a parent that the hub names."""
    await world.create_site()
    agent = world.agent(**rules)
    name = await world.offer()
    await judged(world, agent, name)
    adopted = said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "PolicyRejected")
    assert says in adopted.message
    assert agent.champions.current("digits") is None


@pytest.mark.attack("F2: an image of the hub judges", "agent", "PolicyRejected")
async def test_another_judging_image_than_the_policys_measures_nothing(world: World) -> None:
    """Security finding F2: what the image says decides, so it is the site's choice, and in its signed policy."""
    await world.create_site()
    name = await world.offer()
    await step(world, world.agent(judging=OTHER_IMAGE), name)
    shown = said(world, name, "Staged")
    assert (shown.is_false, shown.reason) == (True, "PolicyRejected")
    assert "spec.judgingImage of the Site" in shown.message
    assert not (world.folder / "work").exists()


async def test_a_base_or_runtime_class_that_the_policy_does_not_name_is_not_loaded(world: World) -> None:
    await world.create_site()
    name, base = await world.offer(), "sha256:" + "0" * 64
    await step(world, world.agent(allowedBases=[base], requiredRuntimeClass="gvisor"), name)
    shown = said(world, name, "Staged")
    assert (shown.is_false, shown.reason) == (True, "PolicyRejected")
    assert f"base {world.get(Release, name).spec.base.digest} is not among this site's 1 allowedBases" in shown.message
    assert "this site's requiredRuntimeClass is gvisor" in shown.message
    assert not (world.folder / "base").exists()


async def test_the_judging_image_need_not_be_the_one_that_trained(world: World) -> None:
    """Security finding F2."""
    await world.create_site()
    agent = world.agent()
    name = await world.offer(contract=await world.contract(recipe={"image": OTHER_IMAGE["image"], "trainFactor": "B"}))
    manifest = await staged(world, agent, name)
    assert manifest["spec"]["template"]["spec"]["containers"][0]["image"] == agent.policy.judging.image
    await judged(world, agent, name)
    assert said(world, name, "Adopted").is_true


async def test_a_federation_the_site_left_meanwhile_is_told(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    await run(world, agent, await staged(world, agent, name))
    world.leave(name, measured())
    site = world.get(Site, world.site).wire()
    site["spec"]["federations"] = [{"name": "letters", "dataClaim": "data"}]
    await world.cluster.replace({**site, "status": {}})
    await step(world, agent, name)
    adopted = said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "PolicyRejected")
    assert "'digits' is not among this site's federations" in adopted.message


# ---- lineage, replay and order


@pytest.mark.parametrize(
    "name", ["contract", "consent", "update", "verdict", "closure", "aggregation", "evaluation", "release"]
)
async def test_a_lineage_with_a_statement_by_somebody_else_or_without_it_is_refused(world: World, name: str) -> None:
    await world.create_site()
    agent = world.agent()
    forged = await world.offer(value=0.1, signers={name: STRANGER})
    await step(world, agent, forged)
    shown = said(world, forged, "Staged")
    assert (shown.is_false, shown.reason) == (True, "LineageInvalid")
    assert "is not signed by an accepted key" in shown.message
    partial = await world.offer(value=0.2, without=name)
    await step(world, agent, partial)
    assert said(world, partial, "Staged").reason == "LineageInvalid"
    assert not (world.folder / "work").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"contractDigest": "sha256:" + "0" * 64}, "0000"),
        ({"lineage": None}, "spec.lineage and spec.contractDigest must be set"),
        ({"sequence": 2}, "release/digits/2"),
        ({"parent": None}, "spec.parent is None"),
        ({"base": {"repository": "digits/base", "digest": "sha256:" + "0" * 64}}, "spec.base is sha256:0000"),
        ({"roundRef": {"name": "r1", "namespace": "concordat", "uid": "other"}}, "spec.roundRef.uid is other"),
        ({"trainedFactor": "A"}, "spec.trainedFactor is A, the round's contract says B"),
    ],
)
async def test_a_copy_that_says_something_else_than_its_lineage_is_refused(
    world: World, changes: dict[str, Any], says: str
) -> None:
    await world.create_site()
    await _altered(world, changes)
    await step(world, world.agent(), "altered")
    shown = said(world, "altered", "Staged")
    assert (shown.is_false, shown.reason) == (True, "LineageInvalid")
    assert says in shown.message


async def test_another_adapter_under_the_same_lineage_is_refused(world: World) -> None:
    await world.create_site()
    await _altered(world, {"adapter": (await world.push_adapter(world.parent)).wire()})
    await step(world, world.agent(), "altered")
    assert "the aggregation is of sha256:" in said(world, "altered", "Staged").message


@pytest.mark.attack("F9: another configuration beside the signed weights", "agent, lineage", "LineageInvalid")
async def test_another_configuration_beside_the_same_weights_is_refused(world: World) -> None:
    """Security finding F9: alpha a hundred times as large, or another base model."""
    await world.create_site()
    adapter = await world.push_adapter(
        {**world.parent, B: np.full((4, 2), 0.5, np.float32)},
        {types.ADAPTER_CONFIG_FILE: b'{"r": 2, "lora_alpha": 200}'},
    )
    await _altered(world, {"adapter": adapter.wire()})
    await step(world, world.agent(), "altered")
    shown = said(world, "altered", "Staged")
    assert (shown.is_false, shown.reason) == (True, "LineageInvalid")
    assert "the aggregation is of sha256:" in shown.message


@pytest.mark.attack("F9: a pickle or module beside the weights", "agent, lineage", "LineageInvalid")
async def test_another_file_beside_the_adapter_is_refused_whoever_signed_it(world: World) -> None:
    """Security finding F9: a pickle, or a Python module, in the folder that a site serves."""
    await world.create_site()
    name = await world.offer(beside={"adapter_model.bin": b"pickle"})
    await step(world, world.agent(), name)
    assert "the files adapter_config.json, adapter_model.bin, adapter_model" in said(world, name, "Staged").message
    assert not (world.folder / "work").exists()


async def _altered(world: World, changes: dict[str, Any]) -> None:
    """A copy like a good one, apart from that."""
    good = world.get(Release, await world.offer()).spec.wire()
    spec = {field: said for field, said in {**good, **changes}.items() if said is not None}
    await world.create("Release", "altered", spec)


async def test_a_replayed_lower_sequence_is_refused_though_its_lineage_holds(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    newer = await world.offer(2, value=0.7)
    await judged(world, agent, newer)
    replayed = await world.offer(1, value=0.5)
    await step(world, agent, replayed)
    shown = said(world, replayed, "Staged")
    assert (shown.is_false, shown.reason) == (True, "LineageInvalid")
    assert "sequence 1 is not higher than 2" in shown.message
    # Its own record counts, not the status, which others may write.
    await world.cluster.apply_status(Release, world.site, newer, {"conditions": []}, FIELD_MANAGER)
    again = await world.offer(1, value=0.6)
    await step(world, world.agent(), again)
    assert "sequence 1 is not higher than 2" in said(world, again, "Staged").message


async def test_a_release_overtaken_while_it_was_measured_is_superseded(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    older, newer = await world.offer(1), await world.offer(2, value=0.7)
    manifest = await staged(world, agent, older)
    await judged(world, agent, newer)
    await run(world, agent, manifest)
    world.leave(older, measured(candidate=990_000))
    await step(world, agent, older)
    adopted = said(world, older, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "Superseded")
    assert present(agent.champions.current("digits")).release == newer


# ---- the Job and what it leaves


async def test_another_job_than_the_releases_is_not_let_run(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    manifest = await staged(world, agent, name)
    manifest["spec"]["template"]["spec"]["containers"][0]["command"].append("--lie")
    await world.propose(manifest)
    release = await step(world, agent, name)
    assert is_suspended(world.job(name))
    assert (said(world, name, "Adopted").is_false, said(world, name, "Adopted").reason) == (True, "JobNotAllowed")
    assert release.status.decision is None


async def test_a_job_that_ran_by_itself_decides_nothing(world: World) -> None:
    """Security finding F1."""
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    manifest = await staged(world, agent, name)
    world.leave(name, measured())
    await world.propose({**manifest, "spec": {**manifest["spec"], "suspend": False}})
    world.end_job(name)
    release = await step(world, agent, name)
    assert (said(world, name, "Adopted").is_false, said(world, name, "Adopted").reason) == (True, "JobNotAllowed")
    assert (release.status.decision, agent.champions.current("digits")) == (None, None)


@pytest.mark.attack("F1: a copy that only the status calls staged", "agent, before the Job", "staged anew")
async def test_a_copy_that_only_the_status_calls_staged_is_staged_before_its_job_runs(world: World) -> None:
    """Security finding F1: the operator may write every condition."""
    await world.create_site()
    name = await world.offer()
    for agent, let in ((world.agent(judging=OTHER_IMAGE), False), (world.agent(), True)):
        conditions = ConditionSet([], 1, world.clock.now())
        conditions.set(ConditionType.STAGED, True, Reason.LINEAGE_VERIFIED, "Believe me.")
        shown = [condition.wire() for condition in conditions.list()]
        await world.cluster.apply_status(Release, world.site, name, {"conditions": shown}, FIELD_MANAGER)
        release, site = world.get(Release, name), world.get(Site, world.site)
        if not let:
            await world.propose(evaluation_job(release, site))
        await step(world, agent, name)
        assert is_suspended(world.job(name)) is not let
    assert (world.folder / "work" / name / "in" / "candidate" / types.ADAPTER_FILE).is_file()


async def test_what_an_earlier_try_staged_is_not_taken_for_what_is_compared_now(world: World) -> None:
    """The agent was stopped before it said that it had staged; meanwhile the site adopted another release."""
    await world.create_site()
    agent = world.agent()
    first, second, third = await world.offer(), await world.offer(2, value=0.7), await world.offer(3, value=0.9)
    await judged(world, agent, first)
    await staged(world, agent, third)
    await judged(world, agent, second, candidate=950_000, champion=900_000)
    await world.cluster.apply_status(Release, world.site, third, {"conditions": []}, FIELD_MANAGER)
    await judged(world, agent, third, candidate=960_000, champion=950_000)
    adopted = said(world, third, "Adopted")
    assert adopted.is_true, adopted.message
    assert f"95.00 % with {second}, in use now" in adopted.message


@pytest.mark.parametrize("file", ["candidate/adapter_model.safetensors", "task.json", "champion/more"])
async def test_inputs_that_changed_under_the_job_decide_nothing(world: World, file: str) -> None:
    """Security finding F1."""
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    await run(world, agent, await staged(world, agent, name))
    world.leave(name, measured())
    changed = world.folder / "work" / name / "in" / file
    changed.parent.mkdir(exist_ok=True)
    changed.write_bytes(b"other")
    release = await step(world, agent, name)
    adopted = said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason, file in adopted.message) == (True, "InputChanged", True)
    assert (release.status.decision, agent.champions.current("digits")) == (None, None)


@pytest.mark.parametrize(
    ("files", "failed", "says"),
    [
        ({}, None, "evaluation.json cannot be opened"),
        ({"evaluation.json": b"{"}, None, "evaluation.json: "),
        (measured(), None, "models.champion is missing"),
        (measured(champion=0), "PodFailurePolicy", "The evaluation Job failed (PodFailurePolicy)"),
    ],
)
async def test_a_job_that_leaves_nothing_usable_decides_nothing(
    world: World, files: dict[str, bytes], failed: str | None, says: str
) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await judged(world, agent, first)
    name = await world.offer(2, value=0.7)
    await run(world, agent, await staged(world, agent, name), failed=failed)
    world.leave(name, files)
    if failed is not None:
        # The operator says when it does not run again.
        conditions = ConditionSet([], 1, world.clock.now())
        conditions.set(ConditionType.VALIDATED, False, Reason.VALIDATION_FAILED, says)
        shown = [condition.wire() for condition in conditions.list()]
        await world.cluster.apply_status(Release, world.site, name, {"conditions": shown}, "concordat-operator")
    release = await step(world, agent, name)
    adopted = said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "ValidationFailed")
    assert says in adopted.message
    assert release.status.decision is None
