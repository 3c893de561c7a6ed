"""`Update`: one site's slot in one round. The operator asks, the site's agent answers, the operator judges."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from concordat.api.attestation import AttestationResult
from concordat.api.conditions import Conditions, ConditionType
from concordat.api.resource import AGE, Column, Kind, Resource, condition_column
from concordat.api.round_status import ExtensionStatus
from concordat.api.types import (
    SET,
    ArtifactRef,
    Decimal6,
    MeasureName,
    Model,
    Name,
    Ppm,
    ReasonText,
    RoundRef,
    Sha256,
    ShortName,
    SignedDecimal,
    Time,
)

Measurements = Annotated[dict[MeasureName, SignedDecimal], Field(max_length=24)]
Alerts = Annotated[list[ReasonText], Field(max_length=8, json_schema_extra=SET)]


class UpdateSpec(Model):
    """The request. It never changes."""

    federation: ShortName
    """Name of the federation."""
    round_ref: RoundRef
    """The round this update is for."""
    site: Name
    """The site that is asked."""
    contract: ArtifactRef
    """Artifact with contract.json and its signed statement."""
    contract_digest: Sha256
    """Digest of contract.json."""
    consent_deadline: Time
    """Until when the site must have consented."""
    submission_deadline: Time
    """Until when the site must have submitted."""


class Consent(Model):
    """The site's signed answer to the contract."""

    statement: ArtifactRef
    """Signed statement (SLSA VSA over contract.json)."""


class Submission(Model):
    """What the site hands in: digests and figures only; the tensors are in the registry."""

    artifact: ArtifactRef
    """Artifact with delta.safetensors."""
    statement: ArtifactRef
    """Signed statement (SLSA provenance over delta.safetensors)."""
    norm: Decimal6
    """Frobenius norm of the weight change that the update makes."""
    clipped: bool
    """Whether the site had to clip its update."""
    examples: Annotated[int, Field(ge=0, le=2**53)]
    """Training examples the site used."""
    parent_ppm: Ppm
    """Accuracy of the parent on the site's own validation data."""
    candidate_ppm: Ppm
    """Accuracy of the locally trained candidate on the same data."""


class Verdict(Model):
    """The hub's judgement."""

    reason: ReasonText
    """Why the update was verified or rejected."""
    norm: Decimal6 | None = None
    """Norm of the weight change as recomputed by the hub; absent where it could not be computed."""
    measurements: Measurements = Field(default_factory=dict)
    """What screening measured, step by step: docs/aggregation.md says what each number means."""
    alerts: Alerts = Field(default_factory=list)
    """What was out of the ordinary without being a reason to reject."""
    attestation: AttestationResult | None = None
    """What was found of the site; absent where the update has no grant that holds."""
    statement: ArtifactRef | None = None
    """Signed statement (SLSA VSA over the update)."""


class UpdateStatus(Model):
    """The answer. `consent` and `submission` and their conditions are the agent's, the rest is the operator's."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Consented, AttestationValid, Staged, Trained, Submitted, Verified; Ready once the site's part is done; Stalled
    while the site is out."""
    consent: Consent | None = None
    """Written by the agent."""
    submission: Submission | None = None
    """Written by the agent."""
    extension: ExtensionStatus | None = None
    """Later deadlines than those of the request. Written by the operator; the agent demands the hub's signature."""
    verdict: Verdict | None = None
    """Written by the operator."""


class Update(Resource):
    """One site's slot in one round: an immutable request, the site's answer, the hub's verdict."""

    KIND: ClassVar[Kind] = Kind(
        kind="Update",
        plural="updates",
        singular="update",
        short="fupd",
        columns=(
            Column("Round", ".spec.roundRef.name"),
            Column("Site", ".spec.site"),
            condition_column("Consented", ConditionType.CONSENTED, "status"),
            condition_column("Trained", ConditionType.TRAINED, "reason"),
            condition_column("Submitted", ConditionType.SUBMITTED, "status"),
            condition_column("Verified", ConditionType.VERIFIED, "reason"),
            Column("Norm", ".status.verdict.norm"),
            condition_column("Message", ConditionType.VERIFIED, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.spec == oldSelf.spec",
                "message": "an Update is a request and cannot change",
                "fieldPath": ".spec",
            },
            *(
                {
                    "rule": f"!has(oldSelf.status) || !has(oldSelf.status.{answer}) || (has(self.status) && "
                    f"has(self.status.{answer}) && self.status.{answer} == oldSelf.status.{answer})",
                    "message": "the site's answer cannot change once it is given",
                    "fieldPath": f".status.{answer}",
                }
                for answer in ("consent", "submission")
            ),
        ),
        selectable=(".spec.site", ".spec.roundRef.name"),
    )

    kind: str = "Update"
    spec: UpdateSpec
    """The request."""
    status: UpdateStatus = Field(default_factory=UpdateStatus)
    """The answer."""

    @property
    def consent_deadline(self) -> datetime:
        """Return until when the site must have consented, extension included."""
        later = self.status.extension
        return self.spec.consent_deadline if later is None else later.consent_deadline

    @property
    def submission_deadline(self) -> datetime:
        """Return until when the site must have submitted, extension included."""
        later = self.status.extension
        return self.spec.submission_deadline if later is None else later.submission_deadline

    @property
    def one_of_many(self) -> bool:
        """Return whether this is one of the objects that a round makes for every site: always."""
        return True


LEFT_CANDIDATE = "The training Job left a candidate."
"""The message of Trained for a Job that ended well, whoever writes it."""


def update_name(round_name: str, round_uid: str) -> str:
    """Name of a round's Update in every site namespace, and of the Job it owns."""
    return f"{round_name}-{round_uid[:8]}"
