"""What the aggregator Job left: read as input that may be wrong, and compared with what it was asked to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from concordat.api import Reason
from concordat.api.round import LoraMode
from concordat.api.round_status import Count
from concordat.api.rules import PreAggregation, Rule
from concordat.api.types import ArtifactRef, Decimal6, Message, Model, Name, ReasonText, Sha256
from concordat.api.update import Alerts, Measurements
from concordat.artifacts import ArtifactNotFound, RegistryStore
from concordat.artifacts.types import ADAPTER_FILE, REPORT_FILE, REQUEST_FILE
from concordat.runtime import Terminal


class Result(Model):
    """The Job's termination message."""

    report: ArtifactRef
    adapter: ArtifactRef | None = None


class Asked(Model):
    """One submission of the request."""

    site: Name
    artifact: ArtifactRef
    statement: ArtifactRef


class Judged(Asked):
    """One verdict of the report."""

    passed: bool
    reason: ReasonText
    message: Message
    norm: Decimal6 | None = None
    measurements: Measurements = Field(default_factory=dict)
    alerts: Alerts = Field(default_factory=list)
    update_sha256: Sha256
    statement_id: Sha256 | None = None


class Report(Model):
    """report.json."""

    schema_: Annotated[Literal["concordat.dev/aggregation-report/v1"], Field(alias="schema")]
    contract_digest: Sha256
    verdicts: list[Judged]
    rule: Rule
    pre_aggregation: PreAggregation
    lora: LoraMode
    rejected: Count
    quarantined: list[Name]
    aggregated: list[Name]
    adapter: ArtifactRef | None = None
    adapter_sha256: Sha256 | None = None
    reason: ReasonText
    message: Message


def result(pods: Sequence[Mapping[str, Any]]) -> Result | None:
    """The Job's result; None if no pod that ended well is there any more. Raises Terminal if it cannot be read."""
    for pod in reversed(pods):
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            ended = (status.get("state") or {}).get("terminated") or {}
            if ended.get("exitCode") != 0:
                continue
            try:
                return Result.model_validate_json(ended.get("message") or "")
            except ValidationError as error:
                raise _unusable(f"its termination message is not valid: {error.errors()[0]['msg']}") from None
    return None


def request_of(job: Mapping[str, Any]) -> ArtifactRef:
    """The request that a Job was started with: what was asked is what the Job says, however late it is read."""
    container = job["spec"]["template"]["spec"]["containers"][0]
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    try:
        repository, _, digest = words[words.index("--request") + 1].partition("@")
        return ArtifactRef(repository=repository, digest=digest)
    except (ValueError, IndexError):
        raise _unusable("the Job names no request") from None


async def confirm(registry: RegistryStore, found: Result, request: ArtifactRef, contract_digest: str) -> Report:
    """The report, if it answers exactly the request and names an adapter that is there. Raises Terminal otherwise."""
    try:
        report = Report.model_validate_json(await registry.read(found.report, REPORT_FILE))
        asked = [Asked.model_validate(s) for s in json.loads(await registry.read(request, REQUEST_FILE))["submissions"]]
        digests = await registry.file_digests(report.adapter) if report.adapter is not None else {}
    except (ArtifactNotFound, ValidationError, ValueError) as error:
        raise _unusable(f"its report cannot be used: {error}") from None
    answered = [Asked(site=v.site, artifact=v.artifact, statement=v.statement) for v in report.verdicts]
    _demand(report.contract_digest == contract_digest, "its report is about another contract")
    _demand(_by_site(answered) == _by_site(asked), "its report does not answer exactly what was submitted")
    accepted = sorted(v.site for v in report.verdicts if v.passed)
    _demand(all(v.statement_id for v in report.verdicts if v.passed), "an accepted update has no statement")
    judged = {v.site for v in report.verdicts}
    _demand(set(report.quarantined) <= judged - set(accepted), "it quarantines a site whose update it accepted")
    _demand(report.adapter == found.adapter, "its report names another adapter than its result")
    if report.adapter is not None:
        _demand(sorted(report.aggregated) == accepted, "it aggregated other updates than it accepted")
        _demand(digests.get(ADAPTER_FILE) == report.adapter_sha256, "its adapter is not the file it names")
    return report


def _by_site(submissions: Sequence[Asked]) -> list[Asked]:
    return sorted(submissions, key=lambda s: s.site)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _unusable(otherwise)


def _unusable(why: str) -> Terminal:
    return Terminal(Reason.AGGREGATION_FAILED, f"The aggregator's result was not accepted: {why}.")
