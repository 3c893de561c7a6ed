"""`Site`: a participant of a federation, one in each site namespace. The evaluator is a Site too."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from concordat.api.conditions import Conditions, ConditionType
from concordat.api.resource import AGE, Column, Kind, Resource, condition_column
from concordat.api.types import (
    ArtifactRef,
    ImageRef,
    KeyThumbprint,
    Model,
    Name,
    Ppm,
    PublicKeyPem,
    Sha256,
    ShortName,
    map_list,
    rules,
)

Proof = Annotated[str, Field(min_length=1, max_length=4096)]


class Role(StrEnum):
    """What the site does in its federations."""

    TRAINER = "Trainer"
    EVALUATOR = "Evaluator"


class SiteFederation(Model):
    """A federation the site takes part in, and the data it uses there."""

    name: ShortName
    """Name of the federation."""
    data_claim: Name
    """PersistentVolumeClaim with the site's data, mounted read-only into the training and evaluation Jobs."""


class SiteSpec(Model):
    """What the site offers. It is written by the site's own Helm release; the hub only reads it."""

    role: Role = Role.TRAINER
    """Trainer takes part in rounds and adopts releases; Evaluator judges candidates on hold-out data."""
    federations: Annotated[list[SiteFederation], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]
    """Federations in which the site takes part."""
    workspace_claim: Name
    """PersistentVolumeClaim through which the agent and the Jobs exchange files."""
    judging_image: ImageRef
    """Image, by digest, that measures releases on this site's data. The site's choice, not the hub's: what it says
    decides what the site adopts, or what an evaluator approves."""
    channel: Name | None = None
    """ReleaseChannel of the hub the site follows; absent: releases are not offered to it."""


class AgentKey(Model):
    """A key that the agent holds, and its proof of that."""

    public_key: PublicKeyPem
    """The key, a PEM SubjectPublicKeyInfo (P-256)."""
    proof: Proof
    """Statement by this key that it is the key of this Site, of this UID: a Sigstore bundle."""
    endorsement: Proof | None = None
    """The same statement by the key before it."""


class AgentStatus(Model):
    """What the agent says of itself."""

    key: AgentKey
    """The site's newest key."""
    previous_key: AgentKey | None = None
    """The one before it, while it is still kept."""
    policy_digest: Sha256
    """Digest of the site policy the agent enforces."""
    version: Annotated[str, Field(min_length=1, max_length=64)]
    """Version of the agent."""

    @property
    def keys(self) -> list[AgentKey]:
        """Return the keys, the newest first."""
        return [self.key] if self.previous_key is None else [self.key, self.previous_key]


class Champion(Model):
    """The release a site uses now."""

    release: Name
    """Name of the site's Release."""
    sequence: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """Its sequence in the federation."""
    artifact: ArtifactRef
    """The adapter in use."""
    quality_ppm: Ppm
    """Its quality on the site's own validation data when it was adopted."""


class AcceptedKey(Model):
    """The key the operator accepts statements of this site by."""

    thumbprint: KeyThumbprint
    """SHA-256 fingerprint of the key in OpenSSH form."""
    public_key: PublicKeyPem
    """The key, a PEM SubjectPublicKeyInfo (P-256)."""


class SiteStatus(Model):
    """What is observed of the site: by its agent (agent, champion), and by the operator (the rest)."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """The generation the operator last acted on."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Accepted, and Quarantined and ClockSkew while they are true."""
    agent: AgentStatus | None = None
    """Written by the agent: its key, policy and version."""
    champion: Champion | None = None
    """Written by the agent: the release in use. Absent: the base package without an adopted release."""
    accepted_key: AcceptedKey | None = None
    """Written by the operator: which of the agent's keys the hub accepts, by the site's Membership."""


class Site(Resource):
    """A participant: data references, release channel. One in each site namespace, named like it.

    Whether the hub accepts it, and by which key, is in the hub's Membership of the same name.
    """

    KIND: ClassVar[Kind] = Kind(
        kind="Site",
        plural="sites",
        singular="site",
        short="fsite",
        columns=(
            Column("Role", ".spec.role"),
            Column("Channel", ".spec.channel"),
            Column("Champion", ".status.champion.release"),
            condition_column("Ready", ConditionType.READY, "status"),
            condition_column("Reason", ConditionType.READY, "reason"),
            condition_column("Message", ConditionType.READY, "message", priority=1),
            AGE,
        ),
        rules=(
            {
                "rule": "self.spec.role == oldSelf.spec.role",
                "message": "role cannot change; install another site for another role",
                "fieldPath": ".spec.role",
            },
        ),
    )

    kind: str = "Site"
    spec: Annotated[
        SiteSpec,
        Field(
            json_schema_extra=rules(
                {
                    "rule": "self.role != 'Evaluator' || !has(self.channel)",
                    "message": "an Evaluator follows no channel; remove channel",
                    "fieldPath": ".channel",
                }
            )
        ),
    ]
    """What the site offers."""
    status: SiteStatus = Field(default_factory=SiteStatus)
    """What is observed."""

    def federation(self, name: str) -> SiteFederation | None:
        """Return the site's entry for a federation, or None if it takes no part."""
        return next((f for f in self.spec.federations if f.name == name), None)
