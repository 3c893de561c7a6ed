"""The agent's Update flow: what it consents to, stages and sends, and that a repeated step changes nothing."""

from __future__ import annotations

import json
import math
import uuid
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from concordat.api import Site, Update
from concordat.api.update import Consent
from concordat.controller import LEASE
from concordat.jobs import training_job
from concordat.lora import Ceiling
from concordat.protocol import artifact_types as types
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import AGENT_LEASE, site_repository
from concordat.statements import SigningKey, open_bundle, sign
from concordat.statements.provenance import read_update
from concordat.statements.summary import consent, read_summary
from concordat.tensors import Tensors, read_tensors
from concordat_agent.agent import FIELD_MANAGER
from concordat_agent.signer import ConsentMissing, Prepared
from concordat_agent.site.heartbeat import Heartbeat
from concordat_agent.site.reconcile import SiteReconciler
from concordat_agent.updates.reconcile import UpdateReconciler
from tests.apiserver.agent.updates import B, candidate, evidence, run, said, staged, step
from tests.apiserver.agent.world import World
from tests.support.presence import present


async def test_consent_stage_submit(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    update = world.get(Update, name)
    document = (world.folder / "work" / name / "in" / "contract.json").read_bytes()
    assert sha256_digest(document) == update.spec.contract_digest
    assert json.loads((world.folder / "work" / name / "in" / "task.json").read_bytes()) == {
        "kind": "train",
        "site": world.site,
    }
    assert (world.folder / "work" / name / "in" / "parent" / types.ADAPTER_FILE).is_file()

    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world, 3.0)})
    update = await step(world, agent, name)

    submission = update.status.submission
    assert submission is not None
    assert said(world, name, "Submitted").is_true
    assert (submission.norm, submission.clipped, submission.examples) == ("2", True, 280)
    delta = await world.registry.read(submission.artifact, types.DELTA_FILE)
    tensors = read_tensors(delta)
    assert list(tensors) == [B]
    assert float(np.linalg.norm(tensors[B])) == pytest.approx(2.0, rel=1e-6)
    signed = await world.registry.read(present(update.status.consent).statement, types.STATEMENT_FILE)
    consent = read_summary(open_bundle(signed, [world.key.public]))
    assert consent.passed
    statement = read_update(
        open_bundle(await world.registry.read(submission.statement, types.STATEMENT_FILE), [world.key.public])
    )
    assert statement.subject == sha256_digest(delta)
    assert statement.one("contract") == update.spec.contract_digest
    assert statement.one("consent") == consent.id
    labels = {"federation": "digits", "phase": "training"}
    shown = [
        REGISTRY.get_sample_value("concordat_agent_local_quality_ratio", {**labels, "model": model})
        for model in ("parent", "candidate")
    ]
    assert shown == [0.5, 0.9]


async def test_a_restart_between_push_and_status_write_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    slot, before = site_repository("digits", world.uid, world.site), world.get(Update, name)
    with monkeypatch.context() as killed:
        killed.setattr(world.cluster, "apply_status", _killed)
        with pytest.raises(KeyboardInterrupt):
            await step(world, world.agent(), name)
    pushed = await world.registry.artifacts(slot)
    assert len(pushed) == 3
    world.clock.advance(1234)
    agent, writes = world.agent(), world.writes
    update = await step(world, agent, name)
    assert present(update.status.submission).artifact in pushed
    assert update.status.consent == before.status.consent
    assert await world.registry.artifacts(slot) == pushed
    await step(world, agent, name)
    assert world.writes == writes + 1


async def _killed(*arguments: Any, **more: Any) -> None:
    """The process dies at this write."""
    raise KeyboardInterrupt


async def test_consent_and_staging_repeat_to_the_same(world: World) -> None:
    name, _ = await staged(world, world.agent())
    before = world.get(Update, name)
    folder = world.folder / "work" / name
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    shown = {"conditions": [], "consent": present(before.status.consent).wire()}
    await world.cluster.apply_status(Update, world.site, name, shown, FIELD_MANAGER)
    world.clock.advance(10)
    agent = world.agent()
    await step(world, agent, name)
    again = await step(world, agent, name)
    assert again.status.consent == before.status.consent
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


async def test_a_refusal_is_signed_and_nothing_is_staged(world: World) -> None:
    await world.create_site()
    agent = world.agent(consent={"maxSteps": 10, "maxWallSeconds": 3600})
    name = await world.request(await world.contract())
    update = await step(world, agent, name)
    consented = said(world, name, "Consented")
    assert (consented.is_false, consented.reason) == (True, "PolicyRefused")
    assert "budget.maxSteps 200 exceeds this site's 10" in consented.message
    data = await world.registry.read(present(update.status.consent).statement, types.STATEMENT_FILE)
    assert not read_summary(open_bundle(data, [world.key.public])).passed
    writes = world.writes
    await step(world, agent, name)
    assert world.writes == writes
    assert not (world.folder / "work").exists()


async def test_the_days_budget_is_spent_once_per_contract_whatever_happens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is restarted after each step, and dies between the entry in its ledger and the status write."""
    await world.create_site()
    rules = {"maxWallSecondsPerDay": 3600}
    first = await world.request(await world.contract())
    slot = site_repository("digits", world.uid, world.site)
    with monkeypatch.context() as killed:
        killed.setattr(world.cluster, "apply_status", _killed)
        with pytest.raises(KeyboardInterrupt):
            await step(world, world.agent(consent=rules), first)
    pushed = await world.registry.artifacts(slot)
    world.clock.advance(100)
    update = await step(world, world.agent(consent=rules), first)
    assert [present(update.status.consent).statement] == pushed == await world.registry.artifacts(slot)
    world.uid = str(uuid.uuid4())
    second = await world.request(await world.contract())
    await step(world, world.agent(consent=rules), second)
    assert said(world, second, "Consented").is_true
    world.uid = str(uuid.uuid4())
    third = await world.request(await world.contract())
    await step(world, world.agent(consent=rules), third)
    refused = said(world, third, "Consented")
    assert (refused.is_false, refused.reason) == (True, "PolicyRefused")
    assert "with 3600 consented to in the 24 hours before" in refused.message


async def test_the_job_of_an_earlier_consent_runs_though_the_day_is_spent_meanwhile(world: World) -> None:
    rules = {"maxWallSecondsPerDay": 3600}
    name, manifest = await staged(world, world.agent(consent=rules))
    world.uid = str(uuid.uuid4())
    await step(world, world.agent(consent=rules), await world.request(await world.contract()))
    await run(world, world.agent(consent=rules), manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await step(world, world.agent(consent=rules), name)
    assert said(world, name, "Submitted").is_true


async def test_a_site_waits_for_its_hours_and_finishes_what_it_began_in_them(world: World) -> None:
    """The hours begin two minutes from now and last for ten."""
    await world.create_site()
    begin, end = (world.clock.now() + timedelta(minutes=minutes) for minutes in (2, 12))
    hours = {"timeZone": "UTC", "from": f"{begin:%H:%M}", "to": f"{end:%H:%M}"}
    agent = world.agent(consent={"hours": hours})
    document = await world.contract()
    name = await world.request(document)
    result = await UpdateReconciler(agent)((world.site, name))
    waiting = said(world, name, "Consented")
    assert (waiting.is_pending, waiting.reason) == (True, "Waiting")
    assert f"it answers at {begin:%Y-%m-%d %H:%M}Z" in waiting.message
    assert world.get(Update, name).status.consent is None
    assert 60 <= present(result.requeue_after) <= 120
    writes = world.writes
    world.clock.advance(30)
    await step(world, agent, name)
    assert world.writes == writes
    world.clock.advance(present(result.requeue_after) - 30)
    await step(world, agent, name)
    assert said(world, name, "Consented").is_true
    world.clock.advance(1200)
    update = await step(world, world.agent(consent={"hours": hours}), name)
    await run(world, agent, training_job(Contract.model_validate(document), update, world.get(Site, world.site)))
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    await step(world, agent, name)
    assert said(world, name, "Submitted").is_true


@pytest.mark.parametrize(
    ("contract", "request_", "says"),
    [
        ({}, {"signer": SigningKey.generate()}, "not signed by an accepted key"),
        ({}, {"contractDigest": "sha256:" + "0" * 64}, "contractDigest is sha256:0000"),
        ({}, {"site": "another"}, "for site 'another'"),
        ({}, {"federation": "letters"}, "federation is digits in the contract"),
        ({}, {"roundRef": {"name": "r1", "namespace": "concordat", "uid": "other"}}, "round uid"),
        ({}, {"submissionDeadline": "2036-01-01T00:00:00Z"}, "submissionDeadline is"),
        ({"sites": "without"}, {}, "is not in the contract"),
        ({"sites": "another key"}, {}, "this site, which holds SHA256:"),
    ],
)
async def test_a_contract_that_is_not_genuine_is_refused(
    world: World, contract: dict[str, Any], request_: dict[str, Any], says: str
) -> None:
    await world.create_site()
    other = SigningKey.generate()
    changes: dict[str, dict[str, Any]] = {
        "without": {"sites": [{**world.entry(other), "name": "another"}]},
        "another key": {"sites": [world.entry(other)]},
    }
    change = next((changes[value] for value in contract.values()), {})
    name = await world.request(await world.contract(**change), **request_)
    update = await step(world, world.agent(), name)
    consented = said(world, name, "Consented")
    assert (consented.is_false, consented.reason) == (True, "ContractInvalid")
    assert says in consented.message
    assert update.status.consent is None


@pytest.mark.parametrize(
    ("files", "reason", "says"),
    [
        ({}, "NoCandidate", "evidence.json cannot be opened"),
        ({"evidence.json": b"{}"}, "NoCandidate", "adapter_model.safetensors cannot be opened"),
        ({"evidence.json": b"{}", types.ADAPTER_FILE: b""}, "NoCandidate", "evidence.json: "),
        ({"evidence.json": evidence(), types.ADAPTER_FILE: b"PK\x03\x04"}, "GateFailed", "no trained copy"),
        ({"evidence.json": evidence(), types.ADAPTER_FILE: b"\0" * (2 << 20)}, "NoCandidate", "are allowed"),
        (
            {"evidence.json": evidence(candidatePpm=479_999), types.ADAPTER_FILE: b""},
            "GateFailed",
            "exceeds gates.maxRegressionPpm 20000",
        ),
    ],
)
async def test_what_fails_stays_at_the_site(world: World, files: dict[str, bytes], reason: str, says: str) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, files)
    update = await step(world, agent, name)
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, reason)
    assert says in submitted.message
    assert update.status.submission is None


async def test_a_consent_written_by_someone_else_sends_nothing(world: World) -> None:
    agent = world.agent(key=world.key)
    name, _ = await staged(world, agent)
    update = world.get(Update, name)
    said = consent(
        site=world.site,
        round_uid=world.uid,
        contract_digest=update.spec.contract_digest,
        policy_digest=agent.policy.digest,
        passed=True,
        reason="Consented",
        at=world.clock.now(),
    )
    forged = sign(said.statement(), SigningKey.generate())
    statement = await world.registry.push("digits/x", types.STATEMENT, {types.STATEMENT_FILE: forged})
    made = Contract.from_bytes(await world.registry.read(update.spec.contract, Contract.FILE))
    for shown in (None, Consent(statement=statement)):
        status = update.status.model_copy(update={"consent": shown})
        with pytest.raises(ConsentMissing):
            await agent.signer.consent_id(update.model_copy(update={"status": status}), made)


async def test_a_failed_job_and_a_late_one_are_told(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest, failed="DeadlineExceeded")
    await step(world, agent, name)
    submitted = said(world, name, "Submitted")
    assert (submitted.is_false, submitted.reason) == (True, "NoCandidate")
    assert "DeadlineExceeded" in submitted.message


async def test_nothing_is_sent_after_the_deadline(world: World) -> None:
    agent = world.agent()
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world)})
    world.clock.advance(timedelta(hours=1).total_seconds())
    await step(world, agent, name)
    assert said(world, name, "Submitted").reason == "DeadlineExceeded"


async def test_the_seam_for_a_site_that_lies(world: World) -> None:
    def poisoned(delta: Tensors, ceiling: Ceiling) -> Prepared:
        scaled = {name: values * np.float32(-20) for name, values in delta.items()}
        return Prepared(delta=scaled, norm=math.hypot(*ceiling.norms(scaled).values()), clipped=False)

    agent = world.agent(prepare=poisoned)
    name, manifest = await staged(world, agent)
    await run(world, agent, manifest)
    world.leave(name, {"evidence.json": evidence(), types.ADAPTER_FILE: candidate(world, 1.0)})
    update = await step(world, agent, name)
    tensors = read_tensors(await world.registry.read(present(update.status.submission).artifact, types.DELTA_FILE))
    assert np.array_equal(tensors[B], np.full((4, 2), -20, np.float32))


async def test_the_sites_presence(world: World) -> None:
    await world.create_site()
    agent = world.agent()
    agent.workspace.prepare("gone")
    key = (world.site, world.site)
    heartbeat = Heartbeat(agent)
    result = await heartbeat(key)
    assert result.requeue_after == 30
    await SiteReconciler(agent)(key)
    site = world.get(Site, world.site)
    shown = present(site.status.agent)
    assert (shown.key.public_key, shown.previous_key) == (world.key.public.to_pem(), None)
    assert shown.policy_digest == agent.policy.digest
    assert site.status.champion is None
    lease = await world.cluster.get(LEASE, world.site, AGENT_LEASE)
    assert not (world.folder / "work" / "gone").exists()
    writes = world.writes
    world.clock.advance(30)
    await heartbeat(key)
    await SiteReconciler(agent)(key)
    renewed = await world.cluster.get(LEASE, world.site, AGENT_LEASE)
    assert renewed["spec"]["renewTime"] > lease["spec"]["renewTime"]
    assert world.writes == writes
