"""The operator's request to the aggregator Job, and the Job's report."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from concordat.api.aggregation_rules import PreAggregation, Rule
from concordat.api.attestation import AttestationResult
from concordat.api.round import LoraMode
from concordat.api.round_status import Count
from concordat.api.types import ArtifactRef, Decimal6, Message, Model, Name, PublicKeyPem, ReasonText, Sha256
from concordat.api.update import Alerts, Measurements
from concordat.protocol.document import Document


class SubmittedUpdate(Model):
    """The place of a site's update and consent in the registry, as its status named them when the request was made."""

    site: Name
    artifact: ArtifactRef
    statement: ArtifactRef
    consent: ArtifactRef | None = None
    """Absent if the site's status names none any more: the update is rejected then."""


class AggregationRequest(Document):
    """The updates to aggregate. The Job's result depends on nothing else."""

    FILE: ClassVar[str] = "request.json"
    LIMIT: ClassVar[int] = 4 << 20

    schema_: Annotated[Literal["concordat.dev/aggregation-request/v1"], Field(alias="schema")] = (
        "concordat.dev/aggregation-request/v1"
    )
    contract: ArtifactRef
    contract_digest: Sha256
    contract_key: PublicKeyPem
    gateway_keys: Annotated[list[PublicKeyPem], Field(max_length=8)]
    """Of the hub's gateway, which signs the grants that updates are sent with."""
    submissions: Annotated[list[SubmittedUpdate], Field(max_length=1000)]
    """In the order in which the hub saw them arrive: of two that are alike, the first counts."""
    ancestors: Annotated[list[ArtifactRef], Field(max_length=2)] = Field(default_factory=list)
    """The adapters that the parent was made from, newest first. They show how the weights changed last, so that an
    update that only repeats it is recognized: when the factors take turns, its round was two ago."""


class ReportedUpdate(SubmittedUpdate):
    """The verdict on one update, before the operator signs it."""

    passed: bool
    reason: ReasonText
    message: Message
    norm: Decimal6 | None = None
    measurements: Measurements = Field(default_factory=dict)
    alerts: Alerts = Field(default_factory=list)
    update_sha256: Sha256
    """Digest of delta.safetensors, or of the artifact if it could not be read."""
    attestation: AttestationResult | None = None
    """What was found of the site; absent if the update has no grant that holds."""
    statement_id: Sha256 | None = None
    """Id of the update's statement; absent if it is not by the site."""


class AggregationReport(Document):
    """The aggregator's result. Without `adapter` there is no candidate, and `reason` says why."""

    FILE: ClassVar[str] = "report.json"
    LIMIT: ClassVar[int] = 4 << 20

    schema_: Annotated[Literal["concordat.dev/aggregation-report/v1"], Field(alias="schema")] = (
        "concordat.dev/aggregation-report/v1"
    )
    contract_digest: Sha256
    verdicts: list[ReportedUpdate]
    rule: Rule
    pre_aggregation: PreAggregation
    lora: LoraMode
    max_faulty_sites: Count
    rejected: Count
    """Updates that screening charged to the fault budget."""
    remaining_faults: Count
    """How many faulty updates the rule was to withstand among those aggregated."""
    suspected: list[Name]
    """Sites whose updates raised independent alerts and failed the functional check."""
    spectrum: list[Decimal6]
    """Shares of the accepted updates' energy around their mean, by principal component, largest first."""
    aggregated: list[Name]
    weights: list[str] | None = None
    """Weights of the aggregated updates, in their order, where the rule has any."""
    aggregate_norm: str | None = None
    lora_error: str | None = None
    """Part of the exact average that the candidate's rank cannot express, relative to its norm."""
    adapter: ArtifactRef | None = None
    reason: ReasonText
    message: Message


class AggregationResult(Model):
    """The Job's termination message."""

    report: ArtifactRef
    adapter: ArtifactRef | None = None
