"""`Release` and `ReleaseChannel`: immutable bundles of digests, and pointers to them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from concordat.api.conditions import Condition, Conditions, ConditionSet, ConditionType, Reason, find
from concordat.api.resource import AGE, Column, Kind, Resource, condition_column
from concordat.api.round import Factor
from concordat.api.round_status import Attempt, EvaluationStatus
from concordat.api.types import (
    LABEL_SITE,
    ArtifactRef,
    Message,
    Model,
    Name,
    NameRef,
    Ppm,
    RoundRef,
    Sha256,
    ShortName,
    Time,
    rules,
)

Sequence = Annotated[int, Field(ge=0, le=2**31 - 1)]
SiteCount = Annotated[int, Field(ge=0, le=100_000)]


class ReleaseSpec(Model):
    """An immutable bundle of digests.

    In the hub: the global release. In the evaluator's namespace: a candidate to be judged. In a site's namespace:
    that site's own copy, to be adopted or rejected.
    """

    federation: ShortName
    """Name of the federation."""
    sequence: Sequence
    """Position in the federation's history; a rollback is a new, higher sequence. 0 is the start, made by people."""
    base: ArtifactRef
    """The base package: model, adapter configuration, preprocessing."""
    adapter: ArtifactRef
    """The adapter released."""
    parent: ArtifactRef | None = None
    """The adapter it was developed from; absent at the start of a federation."""
    round_ref: RoundRef | None = None
    """The round that made it; absent at the start of a federation."""
    contract_digest: Sha256 | None = None
    """Digest of that round's contract.json."""
    trained_factor: Factor | None = None
    """The LoRA factor that round trained: in aggregation.lora Alternating the next one trains the other."""
    lineage: ArtifactRef | None = None
    """Bundle of signed statements; a site's copy names the one that ends in the signed release."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the evaluation Job, as in the round's contract."""
    confidence_ppm: Annotated[int, Field(ge=500_000, le=999_999)] | None = None
    """Confidence level of the intervals the evaluator reports."""
    deadline: Time | None = None
    """Until when the answer must be there; needed in the evaluator's copy only."""


class Decision(Model):
    """The signed answer of the namespace's agent: an evaluator's verdict or a site's decision."""

    statement: ArtifactRef
    """Signed statement (SLSA VSA over the adapter)."""
    evaluation: EvaluationStatus
    """The figures it rests on, measured on that namespace's own data."""


class Rollout(Model):
    """How many sites have decided what."""

    offered: SiteCount = 0
    """Sites with a copy of the release."""
    adopted: SiteCount = 0
    """Sites that adopted it; in a channel's status, those of its sites that use it now."""
    rejected: SiteCount = 0
    """Sites that rejected it."""
    worst_regression_ppm: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] | None = None
    """The largest fall of quality any site measured on its own data; negative if every site gained."""
    mean_quality_ppm: Ppm | None = None
    """Mean quality over the sites that answered, on their own data."""


class ReleaseStatus(Model):
    """What is observed of the release."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Hub: Evaluated, Approved, Ready. Copies: Staged, Validated, Ready, and Evaluated or Adopted and Champion.
    Both: Stalled while it is true."""
    decision: Decision | None = None
    """Written by the agent of the namespace."""
    attempt: Attempt | None = None
    """Copies only: the run of the evaluation Job, once one failed."""
    lineage: ArtifactRef | None = None
    """Hub only: the complete bundle, which ends in the signed release."""
    evaluation: EvaluationStatus | None = None
    """Hub only: the evaluator's figures."""
    rollout: Rollout | None = None
    """Hub only: what the sites decided."""


class Release(Resource):
    """An immutable bundle of digests with its sequence and lineage."""

    KIND: ClassVar[Kind] = Kind(
        kind="Release",
        plural="releases",
        singular="release",
        short="frel",
        columns=(
            Column("Federation", ".spec.federation"),
            Column("Sequence", ".spec.sequence", type="integer"),
            condition_column("Approved", ConditionType.APPROVED, "status"),
            condition_column("Adopted", ConditionType.ADOPTED, "status"),
            condition_column("Ready", ConditionType.READY, "status"),
            condition_column("Reason", ConditionType.READY, "reason"),
            condition_column("Message", ConditionType.READY, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.spec == oldSelf.spec",
                "message": "a Release cannot change; make a new one with a higher sequence",
                "fieldPath": ".spec",
            },
        ),
        selectable=(".spec.federation",),
    )

    kind: str = "Release"
    spec: Annotated[
        ReleaseSpec,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "(self.sequence == 0) == !has(self.roundRef)",
                    "message": "sequence 0 is the start of a federation and has no roundRef; every other has one",
                    "fieldPath": ".sequence",
                }
            )
        ),
    ]
    """An immutable bundle of digests."""
    status: ReleaseStatus = Field(default_factory=ReleaseStatus)
    """What is observed."""

    @property
    def one_of_many(self) -> bool:
        """Return whether this is a site's copy."""
        return LABEL_SITE in self.metadata.labels


class Follow(StrEnum):
    """What a channel points to."""

    APPROVED = "Approved"


class ReleaseChannelSpec(Model):
    """A pointer to a release: pinned in Git, or the newest approved one."""

    federation: ShortName
    """Name of the federation."""
    release: Name | None = None
    """A Release of the hub, pinned."""
    follow: Follow | None = None
    """Approved: the release with the highest sequence that the evaluator approved."""


class ReleaseChannelStatus(Model):
    """What is observed of the channel."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready: every subscribed site has decided about the release, and none uses a later one. Reconciling until then."""
    release: NameRef | None = None
    """The release the channel points to."""
    sequence: Sequence | None = None
    """Its sequence."""
    rollout: Rollout | None = None
    """What the subscribed sites decided, and how many of them use it."""
    summary: Annotated[Message, Field(max_length=64)] | None = None
    """For printing only."""


class ReleaseChannel(Resource):
    """A pointer that sites subscribe to by name."""

    KIND: ClassVar[Kind] = Kind(
        kind="ReleaseChannel",
        plural="releasechannels",
        singular="releasechannel",
        short="fchan",
        columns=(
            Column("Federation", ".spec.federation"),
            Column("Release", ".status.release.name"),
            Column("Sites", ".status.summary"),
            condition_column("Ready", ConditionType.READY, "status"),
            condition_column("Reason", ConditionType.READY, "reason"),
            condition_column("Message", ConditionType.READY, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.spec.federation == oldSelf.spec.federation",
                "message": "federation cannot change; create another channel",
                "fieldPath": ".spec.federation",
            },
        ),
    )

    kind: str = "ReleaseChannel"
    spec: Annotated[
        ReleaseChannelSpec,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "has(self.release) != has(self.follow)",
                    "message": "exactly one of release and follow must be set",
                }
            )
        ),
    ]
    """A pointer to a release."""
    status: ReleaseChannelStatus = Field(default_factory=ReleaseChannelStatus)
    """What is observed."""


def answer(conditions: Iterable[Condition]) -> Condition | None:
    """Return the agent's decision on a copy, or why there can be none; None while it is open."""
    known = tuple(conditions)
    for decision in (ConditionType.EVALUATED, ConditionType.ADOPTED):
        if (condition := find(known, decision)) is not None and not condition.is_pending:
            return condition
    staged, validated = find(known, ConditionType.STAGED), find(known, ConditionType.VALIDATED)
    if staged is not None and staged.is_false and not staged.is_pending:
        return staged
    return validated if validated is not None and validated.is_false and not validated.is_pending else None


def show_answer(conditions: ConditionSet, reply: Condition | None) -> None:
    """Set Ready and Stalled of a copy from the answer: Stalled where it is final and not good."""
    conditions.drop(ConditionType.STALLED)
    if reply is None:
        waiting = "The namespace's agent has not decided yet."
        conditions.set(ConditionType.READY, False, Reason.IN_PROGRESS, waiting)
        return
    conditions.set(ConditionType.READY, reply.is_true, reply.reason, reply.message)
    if not reply.is_true:
        conditions.set(ConditionType.STALLED, True, reply.reason, reply.message)


def copy_name(release: Release) -> str:
    """Name of a release's copy in an evaluator's or a site's namespace, and of the Job it owns."""
    return release.metadata.name


def release_name(round_name: str, round_uid: str, adapter: ArtifactRef) -> str:
    """Name of the release a round makes. A round that is made again under its name makes another one."""
    return f"{round_name}-{hashlib.sha256(f'{round_uid} {adapter.digest}'.encode()).hexdigest()[:8]}"
