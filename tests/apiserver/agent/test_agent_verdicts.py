"""The agent's Release flow as the evaluator: the verdict on a candidate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concordat.api import Release, Site
from concordat.lineage import bundle, verify_candidate, verify_release
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey, names, sign
from concordat.statements.release import ReleaseStatement
from concordat_agent.site.reconcile import SiteReconciler
from tests.apiserver.agent.releases import decision, judged, said, step
from tests.apiserver.agent.world import World
from tests.support.presence import present

STRANGER = SigningKey.generate()


async def test_the_evaluators_verdict_completes_the_lineage(world: World) -> None:
    await world.create_site("Evaluator")
    agent = world.agent()
    # Whoever judges took no part.
    name = await world.offer(candidate=True, by=("another-site", STRANGER))
    release = await judged(world, agent, name)
    evaluated = said(world, name, "Evaluated")
    assert (evaluated.is_true, evaluated.reason) == (True, "Approved")
    verdict = await decision(world, release)
    assert names.EVALUATED in verdict.levels

    spec = release.spec
    adapter = spec.adapter.digest
    lines = await world.registry.read(present(spec.lineage), types.LINEAGE_FILE)
    facts = {"adapter": adapter, "contract_digest": present(spec.contract_digest)}
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
    trust = replace(agent.trust, evaluators={world.site: (world.key.public,)})
    assert verify_release(whole, trust, sequence=1, **facts).evaluation_id == verdict.id


async def test_the_evaluator_rejects_what_does_not_gain(world: World) -> None:
    await world.create_site("Evaluator")
    agent = world.agent()
    name = await world.offer(candidate=True)
    release = await judged(world, agent, name, parent=900_000, candidate=899_999)
    evaluated = said(world, name, "Evaluated")
    assert (evaluated.is_false, evaluated.reason) == (True, "Rejected")
    assert not (await decision(world, release)).passed
    assert agent.champions.current("digits") is None


@pytest.mark.attack("F12: a candidate that beats a useless parent", "evaluator", "Rejected")
async def test_the_evaluator_has_a_floor_of_its_own(world: World) -> None:
    """Security finding F12: the hub names the parent that a candidate has to beat, and may name a useless one."""
    await world.create_site("Evaluator")
    agent = world.agent(judging={"minQualityPpm": 500_000})
    name = await world.offer(candidate=True)
    await judged(world, agent, name, parent=100_000, candidate=499_999)
    evaluated = said(world, name, "Evaluated")
    assert (evaluated.is_false, evaluated.reason) == (True, "Rejected")
    assert "below judging.minQualityPpm 500000" in evaluated.message


@pytest.mark.attack("F12: a candidate below what was approved last", "evaluator", "Rejected")
async def test_the_evaluator_remembers_what_it_approved_last(world: World) -> None:
    """Security finding F12: a candidate from an old, weaker parent gains on that one, and falls below the last."""
    await world.create_site("Evaluator")
    agent = world.agent()
    first = await world.offer(candidate=True)
    await judged(world, agent, first, parent=500_000, candidate=900_000)
    assert said(world, first, "Evaluated").is_true
    assert present(agent.champions.current("digits")).release == first
    second = await world.offer(2, value=0.7, candidate=True)
    await judged(world, agent, second, parent=500_000, candidate=600_000, champion=900_000)
    evaluated = said(world, second, "Evaluated")
    assert (evaluated.is_false, evaluated.reason) == (True, "Rejected")
    assert f"90.00 % with {first}, approved last" in evaluated.message
    third = await world.offer(3, value=0.8, candidate=True)
    await judged(world, agent, third, parent=500_000, candidate=890_000, champion=900_000)
    assert said(world, third, "Evaluated").is_true
    await SiteReconciler(agent)((world.site, world.site))
    assert world.get(Site, world.site).status.champion is None


async def test_what_was_approved_last_counts_also_when_the_hub_keeps_it_no_more(world: World) -> None:
    """It was approved and never released, so nothing living names it: the quality it had then is what is known."""
    await world.create_site("Evaluator")
    agent = world.agent()
    first = await world.offer(candidate=True)
    await judged(world, agent, first, parent=500_000, candidate=900_000)
    await world.registry.delete(world.get(Release, first).spec.adapter)
    second = await world.offer(2, value=0.7, candidate=True)
    await judged(world, agent, second, parent=500_000, candidate=870_000)
    evaluated = said(world, second, "Evaluated")
    assert (evaluated.is_false, evaluated.reason) == (True, "Rejected")
    assert f"90.00 % with {first}, approved last" in evaluated.message


async def test_the_evaluator_takes_candidates_only(world: World) -> None:
    await world.create_site("Evaluator")
    name = await world.offer()
    await step(world, world.agent(), name)
    assert "of a candidate has an evaluation already" in said(world, name, "Staged").message
