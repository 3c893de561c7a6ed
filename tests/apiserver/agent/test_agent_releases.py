"""The agent's Release flow: what it verifies, adopts, rejects and signs, as a site and as the evaluator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from concordat.api import Condition, ConditionSet, ConditionType, Reason, Release, Site
from concordat.jobs import evaluation_job
from concordat.lineage import bundle, verify_candidate, verify_release
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey, names, open_bundle, sign
from concordat.statements.release import ReleaseStatement
from concordat.statements.summary import Summary, read_summary
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.releases.reconcile import ReleaseReconciler
from concordat_agent.site.reconcile import SiteReconciler
from tests.apiserver.agent.world import World
from tests.support.presence import present

STRANGER = SigningKey.generate()


def _measured(parent: int = 500_000, candidate: int = 900_000, champion: int | None = None) -> dict[str, bytes]:
    """What the evaluation Job leaves; accuracies in parts per million."""
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


async def _step(world: World, agent: Agent, name: str) -> Release:
    await ReleaseReconciler(agent)((world.site, name))
    return world.get(Release, name)


def _said(world: World, name: str, type_: str) -> Condition:
    return present(world.condition(Release, name, type_))


async def _staged(world: World, agent: Agent, name: str) -> dict[str, Any]:
    """Stage a copy; returns the manifest of its Job."""
    await _step(world, agent, name)
    staged = _said(world, name, "Staged")
    assert staged.is_true, staged.message
    release, site = world.get(Release, name), world.get(Site, world.site)
    return evaluation_job(release, site)


async def _judged(world: World, agent: Agent, name: str, **measured: Any) -> Release:
    """Stage a copy, run its Job, decide."""
    await world.end_job(await _staged(world, agent, name))
    world.leave(name, _measured(**measured))
    return await _step(world, agent, name)


async def _decision(world: World, release: Release) -> Summary:
    """What the agent signed, as somebody else reads it."""
    assert release.status.decision is not None
    data = await world.registry.read(present(release.status.decision).statement, types.STATEMENT_FILE)
    return read_summary(open_bundle(data, [world.key.public]))


# ---- a site


async def test_a_release_is_verified_measured_adopted_and_signed(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    manifest = await _staged(world, agent, name)
    folder = world.folder / "work" / name / "in"
    assert json.loads((folder / "task.json").read_bytes()) == {
        "kind": "evaluate",
        "confidencePpm": 950_000,
        "models": ["parent", "candidate"],
    }
    assert all((folder / model / types.ADAPTER_FILE).is_file() for model in ("parent", "candidate"))
    assert not (folder / "champion").exists()

    await world.end_job(manifest)
    world.leave(name, _measured())
    release = await _step(world, agent, name)

    assert _said(world, name, "Adopted").is_true
    decision = await _decision(world, release)
    assert (decision.passed, decision.site, decision.resource) == (True, world.site, "concordat:release/digits/1")
    assert names.ADOPTED in decision.levels
    labels = {"federation": "digits", "phase": "evaluation", "model": "candidate"}
    assert REGISTRY.get_sample_value("concordat_agent_local_quality_ratio", labels) == 0.9
    assert present(release.status.decision).evaluation.candidate_ppm == 900_000
    await SiteReconciler(agent)((world.site, world.site))
    champion = present(world.get(Site, world.site).status.champion)
    assert (champion.release, champion.sequence, champion.quality_ppm) == (name, 1, 900_000)
    writes = world.writes
    await _step(world, agent, name)
    assert world.writes == writes


async def test_a_restart_between_adoption_and_status_write_changes_nothing(world: World) -> None:
    await world.create_site()
    name = await world.offer()
    await world.end_job(await _staged(world, world.agent(), name))
    world.leave(name, _measured())
    staged = world.get(Release, name)
    first = await _step(world, world.agent(), name)
    # As if the process had been killed before it wrote the status.
    await world.put_back(staged)
    world.clock.advance(1234)
    second = await _step(world, world.agent(), name)
    assert second.status.decision == first.status.decision
    assert _said(world, name, "Adopted").is_true


async def test_the_next_release_is_compared_with_the_champion(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await _judged(world, agent, first)
    # Made from another parent than the champion, as after a rollback: all three are measured.
    second = await world.offer(2, value=0.7)
    manifest = await _staged(world, agent, second)
    folder = world.folder / "work" / second / "in"
    assert json.loads((folder / "task.json").read_bytes())["models"] == ["parent", "candidate", "champion"]
    assert (folder / "champion" / types.ADAPTER_FILE).is_file()
    await world.end_job(manifest)
    world.leave(second, _measured(champion=920_000, candidate=930_000))
    await _step(world, agent, second)
    adopted = _said(world, second, "Adopted")
    assert adopted.is_true
    assert f"92.00 % with {first}, in use now" in adopted.message
    # The one before is history, and costs no write: the Site names the champion.
    writes = world.writes
    await _step(world, agent, first)
    assert world.writes == writes
    assert present(agent.champions.current("digits")).release == second


async def test_a_release_from_the_champion_measures_it_once(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await _judged(world, agent, first)
    champion = world.get(Release, first).spec.adapter
    terms = await world.contract(parent=champion, parentRelease={"name": first, "sequence": 1})
    second = await world.offer(2, value=0.9, contract=terms)
    release = await _judged(world, agent, second, parent=900_000, candidate=890_000)
    task = json.loads((world.folder / "work" / second / "in" / "task.json").read_bytes())
    assert task["models"] == ["parent", "candidate"]
    assert _said(world, second, "Adopted").is_true
    assert (await _decision(world, release)).passed


async def test_a_regression_is_rejected_with_a_signature_and_the_champion_stays(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await _judged(world, agent, first)
    second = await world.offer(2, value=0.7)
    release = await _judged(world, agent, second, candidate=870_000, champion=900_000)
    adopted = _said(world, second, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "Regression")
    assert not (await _decision(world, release)).passed
    assert present(agent.champions.current("digits")).release == first


@pytest.mark.parametrize(
    ("adoption", "says"),
    [
        ({"mode": "Never"}, "adoption.mode is Never"),
        ({"minQualityPpm": 950_000}, "below adoption.minQualityPpm 950000"),
    ],
)
async def test_the_sites_policy_rejects(world: World, adoption: dict[str, Any], says: str) -> None:
    await world.create_site()
    agent = world.agent(adoption=adoption)
    name = await world.offer()
    await _judged(world, agent, name)
    adopted = _said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "PolicyRejected")
    assert says in adopted.message
    assert agent.champions.current("digits") is None


async def test_an_image_the_site_does_not_allow_is_not_even_staged(world: World) -> None:
    await world.create_site()
    allowed = {"maxSteps": 500, "maxWallSeconds": 3600, "allowedImages": ["x@sha256:" + "0" * 64]}
    name = await world.offer()
    await _step(world, world.agent(consent=allowed), name)
    assert (_said(world, name, "Staged").is_false, _said(world, name, "Staged").reason) == (True, "PolicyRejected")
    assert not (world.folder / "work").exists()


async def test_a_federation_the_site_left_meanwhile_is_told(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    await world.end_job(await _staged(world, agent, name))
    world.leave(name, _measured())
    site = world.get(Site, world.site).wire()
    site["spec"]["federations"] = [{"name": "letters", "dataClaim": "data"}]
    await world.cluster.replace({**site, "status": {}})
    await _step(world, agent, name)
    adopted = _said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "PolicyRejected")
    assert "takes no part in federation 'digits'" in adopted.message


# ---- lineage, replay and order


@pytest.mark.parametrize(
    "name", ["contract", "consent", "update", "verdict", "closure", "aggregation", "evaluation", "release"]
)
async def test_a_lineage_with_a_statement_by_somebody_else_or_without_it_is_refused(world: World, name: str) -> None:
    await world.create_site()
    agent = world.agent()
    forged = await world.offer(value=0.1, signers={name: STRANGER})
    await _step(world, agent, forged)
    staged = _said(world, forged, "Staged")
    assert (staged.is_false, staged.reason) == (True, "LineageInvalid")
    assert "is not signed by an accepted key" in staged.message
    partial = await world.offer(value=0.2, without=name)
    await _step(world, agent, partial)
    assert _said(world, partial, "Staged").reason == "LineageInvalid"
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
        ({"image": "registry.local/evil@sha256:" + "0" * 64}, "spec.image is registry.local/evil"),
    ],
)
async def test_a_copy_that_says_something_else_than_its_lineage_is_refused(
    world: World, changes: dict[str, Any], says: str
) -> None:
    await world.create_site()
    await _altered(world, changes)
    await _step(world, world.agent(), "altered")
    staged = _said(world, "altered", "Staged")
    assert (staged.is_false, staged.reason) == (True, "LineageInvalid")
    assert says in staged.message


async def test_another_adapter_under_the_same_lineage_is_refused(world: World) -> None:
    await world.create_site()
    await _altered(world, {"adapter": (await world.push_adapter(world.parent)).wire()})
    await _step(world, world.agent(), "altered")
    assert "the aggregation is of sha256:" in _said(world, "altered", "Staged").message


async def _altered(world: World, changes: dict[str, Any]) -> None:
    """A copy like a good one, apart from that."""
    good = world.get(Release, await world.offer()).spec.wire()
    spec = {field: said for field, said in {**good, **changes}.items() if said is not None}
    await world.create("Release", "altered", spec)


async def test_a_replayed_lower_sequence_is_refused_though_its_lineage_holds(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    newer = await world.offer(2, value=0.7)
    await _judged(world, agent, newer)
    replayed = await world.offer(1, value=0.5)
    await _step(world, agent, replayed)
    staged = _said(world, replayed, "Staged")
    assert (staged.is_false, staged.reason) == (True, "LineageInvalid")
    assert "sequence 1 is not higher than 2" in staged.message
    # Its own record counts, not the status, which others may write.
    await world.cluster.apply_status(Release, world.site, newer, {"conditions": []}, FIELD_MANAGER)
    again = await world.offer(1, value=0.6)
    await _step(world, world.agent(), again)
    assert "sequence 1 is not higher than 2" in _said(world, again, "Staged").message


async def test_a_release_overtaken_while_it_was_measured_is_superseded(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    older, newer = await world.offer(1), await world.offer(2, value=0.7)
    manifest = await _staged(world, agent, older)
    await _judged(world, agent, newer)
    await world.end_job(manifest)
    world.leave(older, _measured(candidate=990_000))
    await _step(world, agent, older)
    adopted = _said(world, older, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "Superseded")
    assert present(agent.champions.current("digits")).release == newer


# ---- the Job and what it leaves


async def test_another_job_than_the_releases_is_not_answered(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    name = await world.offer()
    manifest = await _staged(world, agent, name)
    manifest["spec"]["template"]["spec"]["containers"][0]["command"].append("--lie")
    await world.end_job(manifest)
    world.leave(name, _measured())
    release = await _step(world, agent, name)
    assert (_said(world, name, "Adopted").is_false, _said(world, name, "Adopted").reason) == (True, "JobNotAllowed")
    assert release.status.decision is None


@pytest.mark.parametrize(
    ("files", "failed", "says"),
    [
        ({}, None, "evaluation.json cannot be opened"),
        ({"evaluation.json": b"{"}, None, "evaluation.json: "),
        (_measured(), None, "models.champion is missing"),
        (_measured(champion=0), "PodFailurePolicy", "The evaluation Job failed (PodFailurePolicy)"),
    ],
)
async def test_a_job_that_leaves_nothing_usable_decides_nothing(
    world: World, files: dict[str, bytes], failed: str | None, says: str
) -> None:
    await world.create_site()
    agent = world.agent()
    first = await world.offer()
    await _judged(world, agent, first)
    name = await world.offer(2, value=0.7)
    await world.end_job(await _staged(world, agent, name), failed=failed)
    world.leave(name, files)
    if failed is not None:
        # The operator says when it does not run again.
        conditions = ConditionSet([], 1, world.clock.now())
        conditions.set(ConditionType.VALIDATED, False, Reason.VALIDATION_FAILED, says)
        shown = [condition.wire() for condition in conditions.list()]
        await world.cluster.apply_status(Release, world.site, name, {"conditions": shown}, "concordat-operator")
    release = await _step(world, agent, name)
    adopted = _said(world, name, "Adopted")
    assert (adopted.is_false, adopted.reason) == (True, "ValidationFailed")
    assert says in adopted.message
    assert release.status.decision is None


# ---- the evaluator


async def test_the_evaluators_verdict_completes_the_lineage(world: World) -> None:
    await world.create_site("Evaluator")
    agent = world.agent()
    # Whoever judges took no part.
    name = await world.offer(candidate=True, by=("another-site", STRANGER))
    release = await _judged(world, agent, name)
    evaluated = _said(world, name, "Evaluated")
    assert (evaluated.is_true, evaluated.reason) == (True, "Approved")
    verdict = await _decision(world, release)
    assert names.EVALUATED in verdict.levels

    spec = release.spec
    adapter = (await world.registry.file_digests(spec.adapter))[types.ADAPTER_FILE]
    lines = await world.registry.read(present(spec.lineage), types.LINEAGE_FILE)
    facts = {"adapter_sha256": adapter, "contract_digest": present(spec.contract_digest)}
    candidate = verify_candidate(lines, agent.trust, **facts)
    assert verdict.inputs == (candidate.aggregation_id,)
    released = ReleaseStatement(
        subject=adapter,
        federation="digits",
        sequence=1,
        supersedes=present(spec.parent).digest,
        contract=facts["contract_digest"],
        provenance=candidate.aggregation_id,
        evaluation=verdict.id,
    )
    evaluation = await world.registry.read(present(release.status.decision).statement, types.STATEMENT_FILE)
    whole = bundle([*lines.splitlines(), evaluation, sign(released.statement(), world.hub)])
    trust = replace(agent.trust, evaluators={world.site: world.key.public})
    assert verify_release(whole, trust, sequence=1, **facts).evaluation_id == verdict.id


async def test_the_evaluator_rejects_what_does_not_gain(world: World) -> None:
    await world.create_site("Evaluator")
    agent = world.agent()
    name = await world.offer(candidate=True)
    release = await _judged(world, agent, name, parent=900_000, candidate=899_999)
    evaluated = _said(world, name, "Evaluated")
    assert (evaluated.is_false, evaluated.reason) == (True, "Rejected")
    assert not (await _decision(world, release)).passed
    assert agent.champions.current("digits") is None


async def test_the_evaluator_takes_candidates_only(world: World) -> None:
    await world.create_site("Evaluator")
    name = await world.offer()
    await _step(world, world.agent(), name)
    assert "of a candidate has an evaluation already" in _said(world, name, "Staged").message
