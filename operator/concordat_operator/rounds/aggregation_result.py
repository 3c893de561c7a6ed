"""What the aggregator Job left: read as input that may be wrong, and compared with what it was asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from concordat.api import Reason
from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactNotFound, ArtifactTooLarge, RegistryStore
from concordat.errors import Terminal
from concordat.protocol.aggregation import AggregationReport, AggregationRequest, AggregationResult, SubmittedUpdate
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE, MAX_LINEAGE, SITE_STATEMENTS_FILE
from concordat.protocol.document import Document, DocumentError
from concordat.statements import StatementError, unverified

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class ConfirmedReport:
    """A report that answers its request."""

    report: AggregationReport
    site_lines: tuple[bytes, ...]
    """Consents, updates and grants of the accepted sites, a statement each; none without a candidate."""


def result(pods: Sequence[Mapping[str, Any]]) -> AggregationResult | None:
    """Return the Job's result; None if no pod that ended well is left. Raises Terminal if it cannot be read."""
    for pod in reversed(pods):
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            terminated = (status.get("state") or {}).get("terminated") or {}
            if terminated.get("exitCode") != 0:
                continue
            try:
                return AggregationResult.model_validate_json(terminated.get("message") or "")
            except ValidationError as error:
                raise _unusable(f"its termination message is not valid: {error.errors()[0]['msg']}") from None
    return None


async def confirm(
    registry: RegistryStore, job_result: AggregationResult, request: ArtifactRef, contract_digest: str
) -> ConfirmedReport:
    """Return the report if it answers exactly the request and what it names is there. Raises Terminal otherwise."""
    try:
        report = await _read(registry, job_result.report, AggregationReport)
        asked = (await _read(registry, request, AggregationRequest)).submissions
        files, statements = {}, b""
        if report.adapter is not None:
            files = await registry.files(report.adapter)
            statements = await registry.read(job_result.report, SITE_STATEMENTS_FILE, MAX_LINEAGE)
    except (ArtifactNotFound, ArtifactTooLarge, DocumentError) as error:
        raise _unusable(f"its report cannot be used: {error}") from None
    answered = [
        SubmittedUpdate(site=v.site, artifact=v.artifact, statement=v.statement, consent=v.consent)
        for v in report.verdicts
    ]
    _demand(report.contract_digest == contract_digest, "its report is about another contract")
    _demand(_by_site(answered) == _by_site(asked), "its report does not answer exactly what was submitted")
    accepted = sorted(v.site for v in report.verdicts if v.passed)
    _demand(all(v.statement_id for v in report.verdicts if v.passed), "an accepted update has no statement")
    judged = {v.site for v in report.verdicts}
    _demand(set(report.suspected) <= judged - set(accepted), "it suspects a site whose update it accepted")
    _demand(report.adapter == job_result.adapter, "its report names another adapter than its result")
    if report.adapter is not None:
        _demand(sorted(report.aggregated) == accepted, "it aggregated other updates than it accepted")
        _demand(set(files) == {ADAPTER_FILE, ADAPTER_CONFIG_FILE}, "its adapter has other files than an adapter's two")
    return ConfirmedReport(report, await asyncio.to_thread(_site_lines, statements, report))


def _site_lines(statements: bytes, report: AggregationReport) -> tuple[bytes, ...]:
    """Return one consent, one update and one grant of each site whose update was aggregated. Raises Terminal."""
    lines = tuple(statements.splitlines())
    try:
        ids = {unverified(line).id for line in lines}
    except StatementError as error:
        raise _unusable(f"{SITE_STATEMENTS_FILE}: {error}") from None
    updates = {v.statement_id for v in report.verdicts if v.passed} if report.adapter is not None else set()
    _demand(
        updates <= ids and len(ids) == len(lines) == 3 * len(updates),
        f"{SITE_STATEMENTS_FILE} does not hold exactly a consent, an update and a grant of each site that it accepted",
    )
    return lines


async def _read(registry: RegistryStore, ref: ArtifactRef, document: type[D]) -> D:
    return await asyncio.to_thread(document.from_bytes, await registry.read(ref, document.FILE, document.LIMIT))


def _by_site(submissions: Sequence[SubmittedUpdate]) -> list[SubmittedUpdate]:
    return sorted(submissions, key=lambda s: s.site)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _unusable(otherwise)


def _unusable(why: str) -> Terminal:
    return Terminal(Reason.AGGREGATION_FAILED, f"The aggregator's result was not accepted: {why}.")
