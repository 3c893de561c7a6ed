"""`Membership`: whom the hub takes for a site, written by the hub's people or their GitOps, and by nobody else."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from concordat.api.attestation import Tier
from concordat.api.conditions import Conditions, ConditionType
from concordat.api.resource import AGE, Column, Kind, Resource, condition_column
from concordat.api.site import Role
from concordat.api.types import SET, Model, PublicKeyPem, Sha256, ShortName, Time, map_list, rules

MAX_KEYS = 3


class MemberKey(Model):
    """A key that the site's statements are accepted by."""

    public_key: PublicKeyPem
    """The key, a PEM SubjectPublicKeyInfo (P-256)."""
    not_before: Time | None = None
    """When it begins to count; absent: it always did."""
    not_after: Time | None = None
    """When it ceases to count; absent: never. What was signed before stays as it is."""

    def counts(self, now: datetime) -> bool:
        """Return whether the key counts at that time."""
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.not_after is None or now < self.not_after)


class MembershipSpec(Model):
    """Who the site is, and what it may do. The Site in the site's own namespace says what it offers."""

    role: Role = Role.TRAINER
    """Trainer takes part in rounds; the word of an Evaluator decides what is released. The Site must say the same."""
    federations: Annotated[list[ShortName], Field(min_length=1, max_length=16, json_schema_extra=SET)]
    """Federations in which the site may take part; those that its Site names beside them do not count."""
    keys: Annotated[list[MemberKey], Field(min_length=1, max_length=MAX_KEYS, json_schema_extra=map_list("publicKey"))]
    """Keys by which its statements are accepted: one, or two while one takes the place of the other."""
    agent_images: Annotated[list[Sha256], Field(min_length=1, max_length=16, json_schema_extra=SET)] | None = None
    """Digests of the images that the site's agent may run; absent: any, and what runs is written into its grants."""
    least_tier: Tier | None = None
    """How far what is found of the site must be believed before it gets a grant; absent: as far as the round demands.
    The stricter of the two counts."""
    suspended: bool = False
    """True: the site is not asked, and nothing that it says counts."""


class MembershipStatus(Model):
    """What the operator observes."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation the operator last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready: the site is there and shows one of the keys."""


class Membership(Resource):
    """A site that the hub's people accepted: its role and its keys. In the hub's namespace, named like the site."""

    KIND: ClassVar[Kind] = Kind(
        kind="Membership",
        plural="memberships",
        singular="membership",
        short="fmem",
        columns=(
            Column("Role", ".spec.role"),
            Column("Federations", ".spec.federations"),
            condition_column("Ready", ConditionType.READY, "status"),
            condition_column("Reason", ConditionType.READY, "reason"),
            condition_column("Message", ConditionType.READY, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.spec.role == oldSelf.spec.role",
                "message": "role cannot change; another role is another site",
                "fieldPath": ".spec.role",
            },
        ),
    )

    kind: str = "Membership"
    spec: Annotated[
        MembershipSpec,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "self.keys.all(k, !has(k.notBefore) || !has(k.notAfter) || k.notBefore < k.notAfter)",
                    "message": "notAfter must be later than notBefore",
                    "fieldPath": ".keys",
                }
            )
        ),
    ]
    """Who the site is."""
    status: MembershipStatus = Field(default_factory=MembershipStatus)
    """What is observed."""
