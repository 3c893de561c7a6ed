"""What the hub signs and publishes. The same facts give the same bytes: times come from the objects concerned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concordat.api.round_status import ContractStatus, ExtensionStatus
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import gather_bounded
from concordat.lineage import bundle, verify_candidate
from concordat.protocol.aggregation import AggregationReport, ReportedUpdate
from concordat.protocol.artifact_types import (
    CONTRACT,
    LINEAGE,
    LINEAGE_FILE,
    STATEMENT,
    STATEMENT_FILE,
)
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import lineage_repository, releases_repository, round_repository
from concordat.statements import SigningKey, sign, unverified
from concordat.statements.closure import Closure
from concordat.statements.contract import contract_statement
from concordat.statements.extension import Extension
from concordat.statements.provenance import aggregation_provenance
from concordat.statements.release import ReleaseStatement
from concordat.statements.summary import verdict
from concordat_operator.keys import Keys


@dataclass(frozen=True)
class PublishedVerdicts:
    """The hub's signed verdicts on a round's updates."""

    verdicts: dict[str, ArtifactRef]
    """The signed verdict on each site's update."""
    lineage: ArtifactRef | None
    """Bundle of statements up to the aggregation; None without a candidate."""


def repository_of(contract: Contract) -> str:
    """Return the hub's repository for the contract's round."""
    return round_repository(contract.federation, contract.round.uid)


async def publish_contract(registry: RegistryStore, keys: Keys, contract: Contract) -> ContractStatus:
    """Sign and push a contract."""

    def signed() -> tuple[str, dict[str, bytes]]:
        document = contract.to_bytes()
        digest = sha256_digest(document)
        statement = contract_statement(contract.wire(), digest)
        return digest, {Contract.FILE: document, Contract.STATEMENT_FILE: sign(statement, keys.contract)}

    # For a thousand sites it takes longer than the event loop may be held up.
    digest, files = await asyncio.to_thread(signed)
    ref = await registry.push(repository_of(contract), CONTRACT, files)
    return ContractStatus(artifact=ref, sha256=digest, contracted_time=contract.opens)


async def publish_extension(
    registry: RegistryStore, keys: Keys, contract: Contract, digest: str, consent: datetime, submission: datetime
) -> ExtensionStatus:
    """Sign and push later deadlines of a contract."""
    later = Extension(contract=digest, consent_deadline=consent, submission_deadline=submission)
    ref = await _push(registry, repository_of(contract), sign(later.statement(), keys.contract))
    return ExtensionStatus(statement=ref, consent_deadline=consent, submission_deadline=submission)


async def publish_verdicts(
    registry: RegistryStore,
    keys: Keys,
    contract: Contract,
    signed: ContractStatus,
    report: AggregationReport,
    *,
    site_lines: Sequence[bytes],
    at: datetime,
) -> PublishedVerdicts:
    """Sign verdicts, closure and aggregation. `at` is when the aggregator ended.

    `site_lines` are consents, updates and grants of the accepted sites, as the aggregator verified them: nothing is
    read again that a site could have changed or removed since. Raises LineageError if a site would not accept it.
    """
    verdicts: dict[str, ArtifactRef] = {}
    signed_lines: dict[str, bytes] = {}

    async def judge(judged: ReportedUpdate) -> None:
        line = sign(verdict(contract.round.uid, signed.sha256, judged, at).statement(), keys.aggregation)
        verdicts[judged.site] = await _push(registry, repository_of(contract), line)
        signed_lines[judged.site] = line

    await gather_bounded(report.verdicts, judge)
    lines = [signed_lines[judged.site] for judged in report.verdicts]
    accepted = [judged for judged in report.verdicts if judged.passed]
    closure = Closure(
        contract=signed.sha256,
        verdicts=await asyncio.to_thread(_ids, lines),
        accepted=len(accepted),
        rejected=len(report.verdicts) - len(accepted),
        missing=tuple(sorted({site.name for site in contract.sites} - {judged.site for judged in report.verdicts})),
        closed=at,
    )
    lines.append(await _sign_and_push(registry, repository_of(contract), closure.statement, keys.aggregation))
    if report.adapter is None:
        return PublishedVerdicts(verdicts, None)
    closure_id = unverified(lines[-1]).id

    def aggregation() -> dict[str, Any]:
        return aggregation_provenance(contract, report, closure_id, at).statement()

    lines.append(await _sign_and_push(registry, repository_of(contract), aggregation, keys.aggregation))
    lines.append(await registry.read(signed.artifact, Contract.STATEMENT_FILE))
    lines += site_lines
    data, lineage = await publish_lineage(registry, contract.federation, lines)
    adapter, trust = report.adapter.digest, keys.trust({})
    await asyncio.to_thread(verify_candidate, data, trust, adapter=adapter, contract_digest=signed.sha256)
    return PublishedVerdicts(verdicts, lineage)


async def publish_release(
    registry: RegistryStore,
    keys: Keys,
    statement: ReleaseStatement,
    candidate: bytes,
    evaluation: bytes,
) -> tuple[bytes, ArtifactRef]:
    """Sign a release and push the bundle that ends in it; returns the bundle's lines and its reference."""
    federation = statement.federation
    release = await _sign_and_push(registry, releases_repository(federation), statement.statement, keys.contract)
    return await publish_lineage(registry, federation, [*candidate.splitlines(), evaluation, release])


async def publish_lineage(
    registry: RegistryStore, federation: str, lines: Sequence[bytes]
) -> tuple[bytes, ArtifactRef]:
    """Push statements as one bundle; returns it and its reference."""
    data = await asyncio.to_thread(bundle, lines)
    return data, await registry.push(lineage_repository(federation), LINEAGE, {LINEAGE_FILE: data})


def _ids(lines: Sequence[bytes]) -> tuple[str, ...]:
    """Return the ids of statements, in order. Of a thousand it takes a tenth of a second."""
    return tuple(sorted(unverified(line).id for line in lines))


async def _sign_and_push(
    registry: RegistryStore, repository: str, statement: Callable[[], dict[str, Any]], key: SigningKey
) -> bytes:
    # One that names a thousand sites takes a tenth of a second.
    line = await asyncio.to_thread(lambda: sign(statement(), key))
    await _push(registry, repository, line)
    return line


async def _push(registry: RegistryStore, repository: str, line: bytes) -> ArtifactRef:
    return await registry.push(repository, STATEMENT, {STATEMENT_FILE: line})
