"""A site whose consent the hub cannot believe trains nothing, and keeps nobody else from going on."""

from __future__ import annotations

from concordat.api import ConditionSet, ConditionType, Reason, find
from concordat.api.types import ArtifactRef
from concordat.api.update import Consent, UpdateStatus
from concordat.controller import write_status
from concordat.protocol import artifact_types as types
from concordat.protocol.canonical import sha256_digest
from concordat.statements import SigningKey, sign
from concordat.statements.summary import consent
from concordat_agent.agent import FIELD_MANAGER
from tests.scenarios.federation import Federation


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
