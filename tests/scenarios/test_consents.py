"""A site may write its consent and its conditions at any moment: that costs it its own place and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import Update
from concordat.lineage import verify_candidate
from concordat.protocol import artifact_types as types
from concordat.protocol.aggregation import AggregationReport
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present

LOST = {"repository": "digits/x", "digest": "sha256:" + "0" * 64}
SHORTS = ("site-a", "site-b", "site-c", "site-d")


async def _write(federation: Federation, short: str, status: dict[str, Any]) -> None:
    """Merge into the status of a site's Update, as whoever has the rights of its agent can."""
    update = federation.updates("r1")[short]
    path = f"/apis/concordat.dev/v1alpha1/namespaces/{update.metadata.namespace}/updates/{update.metadata.name}/status"
    await federation.admin._write("PATCH", path, {"status": status}, content_type="application/merge-patch+json")


async def _damage(federation: Federation, short: str, how: str) -> None:
    """What a site may do to its consent; to name another one the real API server no longer lets it."""
    if how == "take it back":
        await federation.registry.delete(present(federation.updates("r1")[short].status.consent).statement)
        return
    if how == "delete the Update":
        update = federation.updates("r1")[short]
        federation.agents.pop(federation.name(short))
        await federation.admin.delete(Update, update.metadata.namespace, update.metadata.name)
        return
    consent = LOST
    if how == "name garbage":
        files = {types.STATEMENT_FILE: b"no statement"}
        consent = (await federation.registry.push("digits/x", types.STATEMENT, files)).wire()
    await _write(federation, short, {"consent": None if how == "name nothing" else {"statement": consent}})


async def _accepted(federation: Federation) -> tuple[str, ...]:
    """Short names of the sites in the lineage of the round's candidate, which must hold."""
    status = federation.found("r1").status
    aggregate, signed = present(status.aggregate), present(status.contract)
    report = AggregationReport.from_bytes(await federation.registry.read(aggregate.report, AggregationReport.FILE))
    lineage = verify_candidate(
        await federation.registry.read(present(aggregate.lineage), types.LINEAGE_FILE),
        federation.keys.trust({}),
        adapter=present(report.adapter).digest,
        contract_digest=signed.sha256,
    )
    return tuple(site.removeprefix(f"{federation.prefix}-") for site in lineage.accepted)


def _succeeded(federation: Federation) -> str:
    return condition(federation.found("r1").status.conditions, "Succeeded").reason


@pytest.mark.parametrize("how", ["delete the Update", "name garbage", "name what is not there", "name nothing"])
async def test_a_consent_that_changes_while_the_aggregator_runs_is_not_asked_again(
    federation: Federation, how: str
) -> None:
    """Finding 2: the consent is fixed in the request; the round neither stalls nor loses its lineage."""
    federation.held = {federation.hub_space}
    await federation.round("r1")
    await federation.settle()
    await _damage(federation, "site-b", how)
    federation.held = set()
    await federation.settle()
    assert _succeeded(federation) == "Released"
    assert await _accepted(federation) == SHORTS


@pytest.mark.parametrize("how", ["take it back", "name garbage", "name what is not there", "name nothing"])
async def test_a_consent_that_changes_after_it_was_attested_costs_the_site_its_place(
    federation: Federation, how: str
) -> None:
    """Finding 2: what cannot be verified when the request is made is a verdict on that site alone."""
    federation.held = {federation.name("site-d")}
    await federation.round("r1")
    await federation.settle()
    await _damage(federation, "site-b", how)
    federation.held = set()
    await federation.settle()
    assert _succeeded(federation) == "Released"
    assert await _accepted(federation) == ("site-a", "site-c", "site-d")
    verified = condition(federation.updates("r1")["site-b"].status.conditions, "Verified")
    assert (verified.status, verified.reason) == ("False", "ConsentInvalid")


async def test_a_site_that_writes_every_condition_itself_is_out_alone(federation: Federation) -> None:
    """Finding 5: AttestationValid proves nothing, the aggregator verifies again."""
    del federation.agents[federation.name("site-b")]
    await federation.round("r1")
    await federation.settle()
    now = federation.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    passed = [
        {"type": type_, "status": "True", "reason": "Mine", "message": "", "lastTransitionTime": now}
        for type_ in ("Consented", "AttestationValid", "Staged", "Trained", "Submitted")
    ]
    figures = {"examples": 1, "norm": "1", "clipped": False, "parentPpm": 1, "candidatePpm": 1}
    submission = {"artifact": LOST, "statement": LOST, **figures}
    await _write(federation, "site-b", {"conditions": passed, "consent": {"statement": LOST}, "submission": submission})
    await federation.settle()
    assert _succeeded(federation) == "Released"
    assert await _accepted(federation) == ("site-a", "site-c", "site-d")
    verified = condition(federation.updates("r1")["site-b"].status.conditions, "Verified")
    assert (verified.status, verified.reason) == ("False", "StatementInvalid")
