"""`FederationRound`: one round, from selection to release."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from concordat.api.aggregation_rules import UNPROTECTED, PreAggregation, Rule, least_updates_cel
from concordat.api.attestation import Attestation
from concordat.api.conditions import ConditionType, is_false, is_true
from concordat.api.resource import AGE, Column, Kind, Resource, condition_column
from concordat.api.round_status import FederationRoundStatus
from concordat.api.types import (
    CpuQuantity,
    Decimal6,
    ImageRef,
    LabelKey,
    LabelValue,
    MemoryQuantity,
    Model,
    Name,
    NameRef,
    Ppm,
    ShortName,
    SignedPpm,
    rules,
)

Seconds = Annotated[int, Field(ge=10, le=604_800)]


class ParentRef(Model):
    """The release the round starts from: exactly one of its members."""

    release_ref: NameRef | None = None
    """A Release of the hub, by name."""
    channel_ref: NameRef | None = None
    """The current release of a ReleaseChannel, read when the contract is made."""


class SiteSelector(Model):
    """Which sites are asked."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Labels a Site must carry; empty selects every Site of the federation."""
    max_sites: Annotated[int, Field(ge=1, le=1000)] = 100
    """At most this many sites take part, first by name."""


class Deadlines(Model):
    """How long the round waits; a site that is silent past a deadline is counted out and named."""

    consent_seconds: Seconds = 300
    """From the contract until a site must have consented."""
    submission_seconds: Seconds = 3600
    """From the contract until a site must have submitted."""
    evaluation_seconds: Seconds = 1800
    """From the candidate until the evaluator must have answered."""


class LaterDeadlines(Model):
    """More time for a round that is under way, counted from the contract like the deadlines that it replaces."""

    consent_seconds: Seconds | None = None
    """Until a site must have consented; absent: as it was."""
    submission_seconds: Seconds | None = None
    """Until a site must have submitted; absent: as it was."""


class Budget(Model):
    """What one site may spend on one round."""

    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Optimizer steps."""
    max_wall_seconds: Seconds = 1800
    """Wall-clock time of the training Job."""
    cpu: CpuQuantity = "1"
    """CPU limit of the training Job."""
    memory: MemoryQuantity = "2Gi"
    """Memory limit of the training Job."""


class Factor(StrEnum):
    """Which LoRA factor is trained. While the other stays as in the parent, averaging is exact."""

    A = "A"
    B = "B"
    BOTH = "Both"


class Recipe(Model):
    """How a site trains."""

    train_factor: Factor | None = None
    """The LoRA factor trained in this round. Absent: aggregation.lora decides. Svd trains Both and FrozenA B;
    Alternating trains the one that the parent's round did not, and B where the parent is the federation's first."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Examples in one optimizer step."""
    learning_rate: Decimal6 = "0.003"
    """Learning rate of AdamW."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Seed of sampling; each site mixes its own name in."""
    image: ImageRef | None = None
    """Image of the training Job, by digest. Absent: the operator's default, which the contract then names."""


class Gates(Model):
    """Local gates: a candidate that fails one is never sent."""

    max_regression_ppm: Ppm = 20_000
    """Most that the candidate's quality may fall below the parent's on the site's own validation data."""


class Canary(Model):
    """The functional check: each update by itself, and the candidate, on data of the hub."""

    claim: Name
    """PersistentVolumeClaim in the hub's namespace with validation.safetensors, mounted read-only."""
    max_loss_increase: Decimal6 = "3"
    """An update that raises the mean loss (cross entropy, nats) on the canary data by more fails the check."""
    max_trigger_gain_ppm: Ppm = 300_000
    """An update with which a known trigger turns this many more of the canary examples to one class than with the
    parent fails the check. A failed check is an alert; with two independent ones beside it the update is suspected of
    poisoning and rejected, and the second time within 30 days its site is quarantined."""
    max_candidate_trigger_gain_ppm: Ppm = 400_000
    """A candidate with which a known trigger turns this many more of the canary examples to one class than with the
    base model is refused: no release is proposed."""


class Screening(Model):
    """What the hub refuses. Norms are of the change of the weights, not of the factor: docs/aggregation.md."""

    clip_norm: Decimal6 = "10"
    """Frobenius norm, over all modules, to which a site clips its update. A larger one is rejected, never clipped."""
    module_clip_norm: Decimal6 | None = None
    """The same for each adapted module by itself; absent: only the total is bounded."""
    canary: Canary | None = None
    """Functional check of every update and of the candidate; absent: none, and nothing else finds a backdoor of
    ordinary size."""


class LoraMode(StrEnum):
    """How LoRA factors are averaged, so that the result is the average of what the sites changed in the weights."""

    ALTERNATING = "Alternating"
    FROZEN_A = "FrozenA"
    SVD = "Svd"


class Aggregation(Model):
    """How accepted updates become one. Every update counts the same; a site never chooses its weight."""

    rule: Rule = Rule.DNC
    """Aggregation rule. The default, DnC after ARC, is the one to start with: see docs/aggregation.md."""
    pre_aggregation: PreAggregation = PreAggregation.ARC
    """Before the rule: ARC clips the largest norms; NNM replaces each update by the mean of its nearest."""
    max_faulty_sites: Annotated[int, Field(ge=0, le=500)] = 1
    """The fault budget: how many faulty sites the round must withstand. Each update that screening rejects for what is
    in it uses up one; the rule withstands what is left. More rejections than this hold the round for approval."""
    lora: LoraMode = LoraMode.ALTERNATING
    """Alternating (RoLoRA) trains one factor a round and FrozenA (FFA-LoRA) only B: both average exactly. Svd trains
    both and projects the exact average to the parent's rank, and is refused when that loses more than 5 %."""
    reference_site: Name | None = None
    """The site whose update FLTrust measures the others by: a trainer of the hub, on data it trusts. It is not
    averaged in."""


class Evaluation(Model):
    """What the evaluator demands of the candidate."""

    min_improvement_ppm: SignedPpm = 0
    """Least gain of the candidate over the parent on the evaluator's hold-out data."""
    confidence_ppm: Annotated[int, Field(ge=500_000, le=999_999)] = 950_000
    """Confidence level of the intervals the evaluator reports."""


class FederationRoundSpec(Model):
    """One round. It cannot be changed once it is contracted, apart from `suspend`, `extendDeadlines`, `approveHeld`."""

    federation: ShortName
    """Name of the federation the round belongs to."""
    suspend: bool = False
    """Holds the round: nothing new is started while it is true. Taking it away resumes. The deadlines go on."""
    extend_deadlines: LaterDeadlines | None = None
    """Gives the sites more time. The hub signs the later deadlines; earlier ones than those signed change nothing."""
    approve_held: bool = False
    """Lets a round go on that is held because screening rejected more updates than aggregation.maxFaultySites."""
    parent: Annotated[
        ParentRef,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "has(self.releaseRef) != has(self.channelRef)",
                    "message": "exactly one of releaseRef and channelRef must be set",
                }
            )
        ),
    ]
    """The release the round starts from."""
    sites: SiteSelector = Field(default_factory=SiteSelector)
    """Which sites are asked."""
    quorum: Annotated[int, Field(ge=1, le=1000)] = 3
    """Least number of verified updates; with fewer the round fails and no champion is touched."""
    deadlines: Deadlines = Field(default_factory=Deadlines)
    """How long the round waits."""
    budget: Budget = Field(default_factory=Budget)
    """What one site may spend."""
    recipe: Recipe = Field(default_factory=Recipe)
    """How a site trains."""
    gates: Gates = Field(default_factory=Gates)
    """Local gates."""
    attestation: Attestation = Field(default_factory=Attestation)
    """What a site must show of itself."""
    screening: Screening = Field(default_factory=Screening)
    """What the hub refuses."""
    aggregation: Aggregation = Field(default_factory=Aggregation)
    """How accepted updates become one."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """What the evaluator demands."""


IMMUTABLE_FIELDS = (
    "parent",
    "sites",
    "quorum",
    "deadlines",
    "budget",
    "recipe",
    "gates",
    "attestation",
    "screening",
    "aggregation",
    "evaluation",
)


def _frozen_once_contracted(field: str) -> dict[str, str]:
    contracted = "has(oldSelf.status) && has(oldSelf.status.contract)"
    same = (
        f"has(self.spec.{field}) == has(oldSelf.spec.{field}) "
        f"&& (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field})"
    )
    return {
        "rule": f"!({contracted}) || ({same})",
        "message": f"{field} cannot change: the contract is signed; create a new round",
        "fieldPath": f".spec.{field}",
    }


def _not_before(name: str) -> dict[str, str]:
    later = f"self.extendDeadlines.{name}"
    return {
        "rule": f"!has(self.extendDeadlines) || !has({later}) || {later} >= self.deadlines.{name}",
        "message": f"extendDeadlines.{name} must not be less than deadlines.{name}",
        "fieldPath": f".extendDeadlines.{name}",
    }


_UNPROTECTED = ", ".join(f"'{name.value}'" for name in sorted(UNPROTECTED))
_AGGREGATION_RULES: tuple[dict[str, str], ...] = (
    {
        "rule": "self.quorum >= " + least_updates_cel("self.aggregation.rule", "self.aggregation.maxFaultySites"),
        "message": "too few updates for aggregation.rule to withstand aggregation.maxFaultySites f: quorum must be at "
        "least 2f+1",
        "fieldPath": ".quorum",
    },
    {
        "rule": f"self.aggregation.preAggregation == 'None' || !(self.aggregation.rule in [{_UNPROTECTED}])",
        "message": "this aggregation.rule takes no pre-aggregation; set aggregation.preAggregation to None",
        "fieldPath": ".aggregation.preAggregation",
    },
    {
        "rule": "has(self.aggregation.referenceSite) == (self.aggregation.rule == 'FLTrust')",
        "message": "aggregation.referenceSite is set for FLTrust and for no other rule",
        "fieldPath": ".aggregation.referenceSite",
    },
    {
        "rule": "!has(self.recipe.trainFactor) || "
        "(self.recipe.trainFactor == 'Both') == (self.aggregation.lora == 'Svd')",
        "message": "recipe.trainFactor is Both exactly where aggregation.lora is Svd",
        "fieldPath": ".recipe.trainFactor",
    },
    {
        "rule": "self.aggregation.lora != 'Svd' || (self.aggregation.rule != 'FLTrust' "
        "&& (self.aggregation.rule != 'TrimmedMean' || self.aggregation.preAggregation in ['None', 'NNM']))",
        "message": "aggregation.lora Svd takes no FLTrust, and TrimmedMean by itself or after NNM",
        "fieldPath": ".aggregation.rule",
    },
    {
        "rule": "!has(self.recipe.trainFactor) || self.aggregation.lora != 'FrozenA' || self.recipe.trainFactor == 'B'",
        "message": "aggregation.lora FrozenA trains factor B only; set recipe.trainFactor to B",
        "fieldPath": ".recipe.trainFactor",
    },
)


class FederationRound(Resource):
    """One round: parent, sites, quorum, deadlines, budget, recipe, gates, screening, aggregation, evaluation."""

    KIND: ClassVar[Kind] = Kind(
        kind="FederationRound",
        plural="federationrounds",
        singular="federationround",
        short="fround",
        columns=(
            Column("Federation", ".spec.federation"),
            Column("Phase", ".status.phase"),
            Column("Updates", ".status.summary"),
            Column("Release", ".status.release.name"),
            condition_column("Ready", ConditionType.READY, "status"),
            condition_column("Reason", ConditionType.READY, "reason"),
            condition_column("Message", ConditionType.READY, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.metadata.name.size() <= 40",
                "message": "a round's name has at most 40 characters: names of its Updates and Jobs are made of it",
            },
            {
                "rule": "self.spec.federation == oldSelf.spec.federation",
                "message": "federation cannot change; create a new round",
                "fieldPath": ".spec.federation",
            },
            *(_frozen_once_contracted(f) for f in IMMUTABLE_FIELDS),
            {
                "rule": "!has(oldSelf.status) || !has(oldSelf.status.contract) || (has(self.status) "
                "&& has(self.status.contract) && self.status.contract == oldSelf.status.contract)",
                "message": "a signed contract cannot be withdrawn or replaced",
                "fieldPath": ".status",
            },
        ),
        selectable=(".spec.federation",),
    )

    kind: str = "FederationRound"
    spec: Annotated[
        FederationRoundSpec,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "self.quorum <= self.sites.maxSites",
                    "message": "quorum must not exceed sites.maxSites",
                    "fieldPath": ".quorum",
                },
                {
                    "rule": "self.deadlines.consentSeconds <= self.deadlines.submissionSeconds",
                    "message": "deadlines.consentSeconds must not exceed deadlines.submissionSeconds",
                    "fieldPath": ".deadlines.consentSeconds",
                },
                *(_not_before(name) for name in ("consentSeconds", "submissionSeconds")),
                *_AGGREGATION_RULES,
            )
        ),
    ]
    """One round."""
    status: FederationRoundStatus = Field(default_factory=FederationRoundStatus)
    """What is observed."""

    @property
    def ended(self) -> bool:
        """Return whether the round has ended, well or not."""
        return is_true(self.status.conditions, ConditionType.SUCCEEDED) or is_false(
            self.status.conditions, ConditionType.SUCCEEDED
        )
