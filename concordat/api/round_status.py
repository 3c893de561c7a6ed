"""The status of a `FederationRound`: what is observed of a round."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from concordat.api.conditions import Conditions
from concordat.api.types import (
    ATOMIC,
    SET,
    ArtifactRef,
    Message,
    Model,
    Name,
    NameRef,
    Ppm,
    ReasonText,
    Sha256,
    Time,
    map_list,
)

Count = Annotated[int, Field(ge=0, le=100_000)]


class ContractStatus(Model):
    """The signed contract."""

    artifact: ArtifactRef
    """Artifact with contract.json and its signed statement."""
    sha256: Sha256
    """Digest of contract.json, used everywhere."""
    contracted_time: Time
    """When the contract was made; deadlines count from here."""


class ExtensionStatus(Model):
    """Later deadlines than the contract's, signed."""

    statement: ArtifactRef
    """Signed statement over contract.json with the deadlines."""
    consent_deadline: Time
    """Until when a site must have consented."""
    submission_deadline: Time
    """Until when a site must have submitted."""


class Counts(Model):
    """How far the sites are."""

    selected: Count = 0
    """Sites in the contract."""
    consented: Count = 0
    """Sites that agreed."""
    trained: Count = 0
    """Sites whose training finished."""
    submitted: Count = 0
    """Sites that submitted an update."""
    verified: Count = 0
    """Updates that passed verification."""
    out: Count = 0
    """Sites that declined, failed, were silent or were rejected."""


class DroppedOut(Model):
    """A site that dropped out, and why."""

    site: Name
    """Name of the site."""
    step: ReasonText
    """The step at which it dropped out: Requested, Consented, AttestationValid, Staged, Trained, Submitted or
    Verified. Requested: it could not be asked."""
    reason: ReasonText
    """Reason of that condition; of Requested, NotAllowed."""
    message: Message = ""
    """Message of that condition."""


class AggregationStatus(Model):
    """What the aggregator is asked, fixed before its Job is made: each run of it is asked the same."""

    request: ArtifactRef
    """Artifact with request.json: the updates to be judged."""
    run: Annotated[int, Field(ge=1, le=100)] = 1
    """Which run of the Job this is; the second is called `…-aggregate-2`."""
    retry_time: Time | None = None
    """When a run after a failed one starts at the earliest."""


class AggregateStatus(Model):
    """What the aggregator Job left."""

    report: ArtifactRef
    """Artifact with report.json: every verdict with its numbers."""
    adapter: ArtifactRef | None = None
    """The candidate adapter; absent where too few updates were verified."""
    lineage: ArtifactRef | None = None
    """Bundle of signed statements up to the aggregation."""
    reason: ReasonText = "Aggregated"
    """Aggregated, HeldForApproval, or why there is no candidate."""
    message: Message = ""
    """The same as a sentence, with the arithmetic."""
    verified: Count = 0
    """Updates that passed verification."""
    rejected: Count = 0
    """Updates rejected for what is in them; each used up one of aggregation.maxFaultySites."""
    suspected: Annotated[list[Name], Field(max_length=20, json_schema_extra=SET)] = Field(default_factory=list)
    """Sites whose updates are suspected of poisoning; the second time within 30 days, a site is quarantined."""


class Attempt(Model):
    """Which run of a Job this is, after another failed."""

    number: Annotated[int, Field(ge=2, le=100)]
    """2 is the second run."""
    retry_time: Time
    """When it starts at the earliest."""
    failed_job: Annotated[str, Field(min_length=1, max_length=64)]
    """The uid of the Job that failed."""


class EvaluationStatus(Model):
    """The evaluator's figures, in parts per million."""

    examples: Annotated[int, Field(ge=0, le=2**53)]
    """Hold-out examples."""
    parent_ppm: Ppm
    """Accuracy of the parent."""
    candidate_ppm: Ppm
    """Accuracy of the candidate."""
    candidate_low_ppm: Ppm
    """Lower end of the candidate's confidence interval."""
    candidate_high_ppm: Ppm
    """Upper end of the candidate's confidence interval."""


class FederationRoundStatus(Model):
    """What is observed of the round."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Succeeded, the steps SitesSelected, ContractSigned, UpdatesCollected, Aggregated, Evaluated and Released;
    Reconciling, Stalled, Suspended and PoisoningAlert while they are true."""
    phase: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Za-z]+$")] | None = None
    """For printing only; match on conditions."""
    summary: Annotated[str, Field(max_length=64)] | None = None
    """For printing only: progress in a few words."""
    contract: ContractStatus | None = None
    """The signed contract."""
    extension: ExtensionStatus | None = None
    """Later deadlines, after spec.extendDeadlines."""
    counts: Counts | None = None
    """How far the sites are."""
    arrivals: Annotated[list[Name], Field(max_length=1000, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """The sites that submitted, in the order in which the hub saw it; until the aggregator is asked, whose request says
    it from then on. Of two updates that are alike, the first counts."""
    dropped_sites: Annotated[list[DroppedOut], Field(max_length=20, json_schema_extra=map_list("site"))] = Field(
        default_factory=list
    )
    """The first 20 sites that dropped out, by name."""
    aggregation: AggregationStatus | None = None
    """What the aggregator is asked, and how often it ran."""
    aggregate: AggregateStatus | None = None
    """What the aggregator left."""
    release: NameRef | None = None
    """The candidate Release made of this round."""
    evaluation: EvaluationStatus | None = None
    """The evaluator's figures."""
