"""The agent's Release flow as the evaluator: the verdict on a candidate."""

from __future__ import annotations

from dataclasses import replace

from concordat.lineage import bundle, verify_candidate, verify_release
from concordat.protocol import artifact_types as types
from concordat.statements import SigningKey, names, sign
from concordat.statements.release import ReleaseStatement
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
    trust = replace(agent.trust, evaluators={world.site: world.key.public})
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


async def test_the_evaluator_takes_candidates_only(world: World) -> None:
    await world.create_site("Evaluator")
    name = await world.offer()
    await step(world, world.agent(), name)
    assert "of a candidate has an evaluation already" in said(world, name, "Staged").message
