"""Conditions are the API: what is true, one word why, one sentence for a tired operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from concordat.api.types import Message, Model, ReasonText, Time, map_list


class Reason(StrEnum):
    """Every reason a condition may carry. Reasons are API: tools match on them, docs/reference lists them."""

    # A round
    SUSPENDED = "Suspended"
    SELECTED = "Selected"
    NO_ELIGIBLE_SITE = "NoEligibleSite"
    QUORUM_UNREACHABLE = "QuorumUnreachable"
    QUORUM_NOT_REACHED = "QuorumNotReached"
    PARENT_NOT_FOUND = "ParentNotFound"
    PARENT_NOT_APPROVED = "ParentNotApproved"
    PARENT_SUPERSEDED = "ParentSuperseded"
    ANOTHER_ROUND_OPEN = "AnotherRoundOpen"
    NO_IMAGE = "NoImage"
    TOO_MANY_FAULTS = "TooManyFaults"
    SIGNED = "Signed"
    WAITING = "Waiting"
    COLLECTED = "Collected"
    NOT_ALLOWED = "NotAllowed"
    TOO_LATE = "TooLate"
    AGGREGATED = "Aggregated"
    AGGREGATION_FAILED = "AggregationFailed"
    HELD_FOR_APPROVAL = "HeldForApproval"
    REFERENCE_MISSING = "ReferenceMissing"
    LORA_ERROR_ABOVE_LIMIT = "LoraErrorAboveLimit"
    TRIGGER_RESPONSE = "TriggerResponse"
    POISONING_ALERT = "PoisoningAlert"
    RELEASED = "Released"
    NOT_APPROVED = "NotApproved"
    NO_EVALUATOR = "NoEvaluator"
    EVALUATION_DEADLINE_EXCEEDED = "EvaluationDeadlineExceeded"
    IN_PROGRESS = "InProgress"
    # A site
    ACCEPTED = "Accepted"
    NAME_MISMATCH = "NameMismatch"
    NOT_A_MEMBER = "NotAMember"
    MEMBERSHIP_SUSPENDED = "MembershipSuspended"
    ROLE_MISMATCH = "RoleMismatch"
    NO_KEY = "NoKey"
    KEY_CHANGED = "KeyChanged"
    KEY_IN_USE = "KeyInUse"
    KEY_EXPIRED = "KeyExpired"
    HEARTBEAT = "Heartbeat"
    HEARTBEAT_LOST = "HeartbeatLost"
    OUTAGE_ASSUMED = "OutageAssumed"
    CLOCK_SKEW = "ClockSkew"
    # An update, as its site answers
    CONSENTED = "Consented"
    POLICY_REFUSED = "PolicyRefused"
    CONTRACT_INVALID = "ContractInvalid"
    STAGED = "Staged"
    KEY_POSSESSION_PROVED = "KeyPossessionProved"
    KEY_POSSESSION_NOT_PROVED = "KeyPossessionNotProved"
    TRAINING = "Training"
    TRAINED = "Trained"
    TRAINING_FAILED = "TrainingFailed"
    STOPPED = "Stopped"
    OOM_KILLED = "OOMKilled"
    EVICTED = "Evicted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    VOLUME_NOT_READY = "VolumeNotReady"
    QUOTA_EXCEEDED = "QuotaExceeded"
    QUEUED = "Queued"
    POD_PENDING = "PodPending"
    SITE_NOT_FOUND = "SiteNotFound"
    NOT_ISOLATED = "NotIsolated"
    JOB_NOT_ALLOWED = "JobNotAllowed"
    INPUT_CHANGED = "InputChanged"
    GATE_FAILED = "GateFailed"
    NO_CANDIDATE = "NoCandidate"
    GRANT_REFUSED = "GrantRefused"
    SUBMITTED = "Submitted"
    # An update, as the hub verifies it
    VERIFIED = "Verified"
    ARTIFACT_UNREADABLE = "ArtifactUnreadable"
    STATEMENT_INVALID = "StatementInvalid"
    SIGNATURE_INVALID = "SignatureInvalid"
    CONSENT_INVALID = "ConsentInvalid"
    GRANT_INVALID = "GrantInvalid"
    CONTRACT_MISMATCH = "ContractMismatch"
    PARENT_MISMATCH = "ParentMismatch"
    SCHEMA_MISMATCH = "SchemaMismatch"
    NOT_FINITE = "NotFinite"
    NORM_EXCEEDED = "NormExceeded"
    DUPLICATE = "Duplicate"
    NEAR_DUPLICATE = "NearDuplicate"
    FREE_RIDING = "FreeRiding"
    POISONING_SUSPECTED = "PoisoningSuspected"
    REPLAYED = "Replayed"
    # A release
    GENESIS = "Genesis"
    EVALUATING = "Evaluating"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    LINEAGE_VERIFIED = "LineageVerified"
    LINEAGE_INVALID = "LineageInvalid"
    VALIDATING = "Validating"
    VALIDATED = "Validated"
    ADOPTED = "Adopted"
    POLICY_REJECTED = "PolicyRejected"
    REGRESSION = "Regression"
    VALIDATION_FAILED = "ValidationFailed"
    SUPERSEDED = "Superseded"
    # A channel
    ROLLED_OUT = "RolledOut"
    CANNOT_ROLL_BACK = "CannotRollBack"
    NO_RELEASE = "NoRelease"
    RELEASE_NOT_APPROVED = "ReleaseNotApproved"
    # Any
    CLEANING_UP = "CleaningUp"
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"
    REGISTRY_REFUSED = "RegistryRefused"
    DISK_FULL = "DiskFull"
    INVALID = "Invalid"


RETRIED_REASONS = frozenset({Reason.REGISTRY_UNAVAILABLE, Reason.REGISTRY_REFUSED, Reason.DISK_FULL})
"""Reasons for which a step cannot be done at present and is tried again: it heals without anybody's decision."""

NOT_STARTED_REASONS = frozenset(
    {
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL_FAILED,
        Reason.VOLUME_NOT_READY,
        Reason.QUOTA_EXCEEDED,
        Reason.QUEUED,
        Reason.POD_PENDING,
        Reason.SITE_NOT_FOUND,
    }
)
"""Reasons why a Job does not run yet. It is waited for until its deadline."""

PENDING_REASONS = (
    RETRIED_REASONS
    | NOT_STARTED_REASONS
    | {
        Reason.WAITING,
        Reason.IN_PROGRESS,
        Reason.TRAINING,
        Reason.EVALUATING,
        Reason.VALIDATING,
    }
)
"""Reasons that say "not yet": a condition that is False for one of them is not a failure."""


class ConditionType(StrEnum):
    """Every condition that an object's status may show. Condition types are API: tools match on them."""

    # A round
    SITES_SELECTED = "SitesSelected"
    CONTRACT_SIGNED = "ContractSigned"
    UPDATES_COLLECTED = "UpdatesCollected"
    AGGREGATED = "Aggregated"
    RELEASED = "Released"
    SUCCEEDED = "Succeeded"
    """Unknown until the round has ended."""
    SUSPENDED = "Suspended"
    """Present only while true."""
    POISONING_ALERT = "PoisoningAlert"
    """Present only once true."""
    # A site
    ACCEPTED = "Accepted"
    QUARANTINED = "Quarantined"
    """Present only while true."""
    CLOCK_SKEW = "ClockSkew"
    """Present only while true."""
    # An update
    CONSENTED = "Consented"
    ATTESTATION_VALID = "AttestationValid"
    TRAINED = "Trained"
    SUBMITTED = "Submitted"
    VERIFIED = "Verified"
    # A release and its copies
    APPROVED = "Approved"
    VALIDATED = "Validated"
    ADOPTED = "Adopted"
    # Several kinds
    STAGED = "Staged"
    """An update's and a release's: the Job's inputs are on the site's workspace."""
    EVALUATED = "Evaluated"
    """A round's and a release's: the evaluator's verdict."""
    READY = "Ready"
    RECONCILING = "Reconciling"
    """Present only while true."""
    STALLED = "Stalled"
    """Present only while true."""


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One observation about an object (Kubernetes API conventions, "Typical status properties")."""

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """What is observed, for example SitesSelected."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53)] = 0
    """The metadata.generation this observation was made at."""
    last_transition_time: Time
    """When the status last changed."""
    reason: ReasonText
    """One word that machines match on."""
    message: Message = ""
    """One sentence for people, with what to do next where something is wrong."""

    @property
    def is_true(self) -> bool:
        """Return whether the observation holds."""
        return self.status is ConditionStatus.TRUE

    @property
    def is_false(self) -> bool:
        """Return whether the observation is known not to hold."""
        return self.status is ConditionStatus.FALSE

    @property
    def is_pending(self) -> bool:
        """Return whether the observation does not hold yet, because its step goes on."""
        return self.is_false and self.reason in PENDING_REASONS

    @property
    def is_waiting(self) -> bool:
        """Return whether its step waits or goes on, as the reason alone says."""
        return self.reason in PENDING_REASONS


Conditions = Annotated[list[Condition], Field(max_length=20, json_schema_extra=map_list("type"))]


def find(conditions: Iterable[Condition], type_: ConditionType) -> Condition | None:
    """Return the condition of that type, or None."""
    for condition in conditions:  # Asked for some ten thousand times in a pass over a thousand sites.
        if condition.type == type_:
            return condition
    return None


def first_failed(shown: Mapping[str, Condition], steps: Iterable[ConditionType]) -> Condition | None:
    """Return the condition that put something out: the first of these steps that failed, not one that goes on.

    `shown` are its conditions by type.

    A Job that the hub stopped because its site is out is not why the site is out, if anything else is.
    """
    failed = [found for step in steps if (found := shown.get(step)) and found.is_false and not found.is_pending]
    return next((found for found in failed if found.reason != Reason.STOPPED), failed[0] if failed else None)


def is_true(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Return whether a condition of that type is True."""
    condition = find(conditions, type_)
    return condition is not None and condition.is_true


def is_false(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Return whether a condition of that type is False."""
    condition = find(conditions, type_)
    return condition is not None and condition.is_false


def is_settled(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Return whether a condition of that type is there and its step does not go on."""
    condition = find(conditions, type_)
    return condition is not None and not condition.is_pending


def is_pending(conditions: Iterable[Condition], type_: ConditionType) -> bool:
    """Return whether a condition of that type is False because its step goes on."""
    condition = find(conditions, type_)
    return condition is not None and condition.is_pending


class ConditionSet:
    """The conditions of a status under construction.

    Starts from what is observed, so that `lastTransitionTime` moves only when a status flips and a pass that
    changes nothing produces an equal list.
    """

    def __init__(self, observed: Iterable[Condition], generation: int, now: datetime) -> None:
        self._by_type = {c.type: c for c in observed}
        self._generation = generation
        self._now = now.replace(microsecond=0)

    def set(self, type_: ConditionType, status: bool | None, reason: str, message: str) -> None:
        """Record an observation; `status` None means Unknown. `reason` is a Reason, or another party's own word."""
        value = ConditionStatus.UNKNOWN if status is None else ConditionStatus(str(status))
        old = self._by_type.get(type_)
        since = old.last_transition_time if old is not None and old.status is value else self._now
        self._by_type[type_] = Condition(
            type=str(type_),
            status=value,
            observed_generation=self._generation,
            last_transition_time=since,
            reason=str(reason),
            message=message[:1024],
        )

    def drop(self, type_: ConditionType) -> None:
        """Remove an abnormal-true condition (Reconciling, Stalled) that no longer holds."""
        self._by_type.pop(type_, None)

    def get(self, type_: ConditionType) -> Condition | None:
        """Return the condition of that type, or None."""
        return self._by_type.get(type_)

    def is_true(self, type_: ConditionType) -> bool:
        """Return whether that condition is True."""
        return is_true(self._by_type.values(), type_)

    def is_false(self, type_: ConditionType) -> bool:
        """Return whether that condition is False."""
        return is_false(self._by_type.values(), type_)

    def renewed(self) -> list[Condition]:
        """Return all conditions as observations of this generation: what they say still holds."""
        return [c.model_copy(update={"observed_generation": self._generation}) for c in self._by_type.values()]

    def list(self) -> list[Condition]:
        """Return all conditions, in the order in which they were first set."""
        return list(self._by_type.values())
