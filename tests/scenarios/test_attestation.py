"""A site whose consent the hub cannot believe trains nothing, and keeps nobody else from going on."""

from __future__ import annotations

import pytest

from concordat.api import ConditionSet, ConditionType, Reason, find
from concordat.api.types import ArtifactRef
from concordat.api.update import Consent, UpdateStatus
from concordat.controller import write_status
from concordat.protocol import artifact_types as types
from concordat.protocol.canonical import sha256_digest
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.summary import consent
from concordat_agent.agent import FIELD_MANAGER
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present


async def consents(federation: Federation, short: str, statement: ArtifactRef) -> None:
    """Write a site's answer, as whoever has the rights of its agent can."""
    update = federation.updates("r1")[short]
    conditions = ConditionSet([], update.metadata.generation, federation.clock.now())
    conditions.set(ConditionType.CONSENTED, True, Reason.CONSENTED, "Yes.")
    status = UpdateStatus(conditions=conditions.list(), consent=Consent(statement=statement))
    await write_status(federation.admin, update, status, FIELD_MANAGER, {ConditionType.CONSENTED})


async def test_a_consent_that_does_not_hold_is_no_consent(federation: Federation) -> None:
    for short in ("site-c", "site-d"):
        del federation.agents[federation.name(short)]
    await federation.round("r1", quorum=2, aggregation={"maxFaultySites": 0})
    await federation.settle()
    spec = federation.updates("r1")["site-c"].spec
    consented = consent(
        site=spec.site,
        round_uid=spec.round_ref.uid,
        contract_digest=spec.contract_digest,
        policy_digest=sha256_digest(b""),
        passed=True,
        reason="Consented",
        at=federation.clock.now(),
    )
    files = {types.STATEMENT_FILE: sign(consented.statement(), SigningKey.generate())}
    await consents(federation, "site-c", await federation.registry.push("digits/c", types.STATEMENT, files))
    lost = ArtifactRef(repository="digits/d", digest="sha256:" + "0" * 64)
    await consents(federation, "site-d", lost)
    await federation.settle()

    updates = federation.updates("r1")
    for short, says in (("site-c", "not signed by an accepted key"), ("site-d", lost.digest)):
        attested = find(updates[short].status.conditions, ConditionType.ATTESTATION_VALID)
        assert attested is not None
        assert (attested.status, attested.reason) == ("False", "KeyPossessionNotProved")
        assert says in attested.message
    out = {gone.site: (gone.step, gone.reason) for gone in federation.found("r1").status.dropped_sites}
    reason = ("AttestationValid", "KeyPossessionNotProved")
    assert out == {federation.name("site-c"): reason, federation.name("site-d"): reason}
    trained = {namespace for namespace, _ in federation.launched if namespace != federation.hub_space}
    assert not trained & {federation.name("site-c"), federation.name("site-d")}
    succeeded = find(federation.found("r1").status.conditions, ConditionType.SUCCEEDED)
    assert succeeded is not None
    assert succeeded.reason == "Released"


def out(federation: Federation) -> dict[str, tuple[str, str]]:
    """Who is out of the round, and why, by full name."""
    return {gone.site: (gone.step, gone.reason) for gone in federation.found("r1").status.dropped_sites}


@pytest.mark.attack("a trainer of another image than the contract's", "gateway, then nobody counts it", "GrantRefused")
async def test_a_site_that_trained_with_another_image_gets_no_grant_and_costs_nobody_else_the_round(
    federation: Federation,
) -> None:
    site = federation.name("site-c")
    federation.ran[site] = "registry.local/own@sha256:" + "7" * 64
    await federation.round("r1")
    await federation.settle()
    assert out(federation) == {site: ("Submitted", "GrantRefused")}
    refused = condition(federation.updates("r1")["site-c"].status.conditions, "Submitted")
    assert "ran sha256:777" in refused.message
    assert condition(federation.found("r1").status.conditions, "Succeeded").reason == "Released"


@pytest.mark.attack("a member suspended during the round", "gateway", "GrantRefused")
async def test_a_member_that_is_suspended_after_the_contract_trains_nothing(federation: Federation) -> None:
    site = federation.name("site-d")
    await federation.round("r1")
    await federation.sync()
    while not federation.updates("r1"):
        await federation.operate()
        await federation.sync()
    await federation.patch("memberships", site, {"suspended": True})
    await federation.settle()
    assert out(federation) == {site: ("Submitted", "GrantRefused")}
    assert (site, federation.updates("r1")["site-d"].metadata.name) not in federation.launched


async def test_what_was_found_of_each_site_is_shown_with_its_verdict(federation: Federation) -> None:
    await federation.round("r1")
    await federation.settle()
    for short, update in federation.updates("r1").items():
        verdict = present(update.status.verdict)
        found = present(verdict.attestation)
        assert found.tier == "PlatformObserved", short
        statement = present(update.status.submission).statement
        grant = await federation.registry.read(statement, types.GRANT_FILE)
        assert found.grant == unverified(grant).id


async def test_a_gateway_that_is_started_again_gives_grants_for_the_rounds_under_way(federation: Federation) -> None:
    federation.held = {federation.name(short) for short in ("site-a", "site-b", "site-c", "site-d")}
    await federation.round("r1")
    await federation.settle()
    await federation.start_gateway()
    federation.regrant()
    federation.held = set()
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "Succeeded").reason == "Released"
    assert not out(federation)
