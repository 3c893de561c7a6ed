"""`contract.json`: what a round's sites agree to. Its RFC 8785 bytes are signed; their digest is used everywhere."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from concordat.api.attestation import Attestation
from concordat.api.round import Aggregation, Budget, Evaluation, Factor, Gates, Recipe, Screening
from concordat.api.types import ArtifactRef, ImageRef, KeyThumbprint, Model, Name, PublicKeyPem, ShortName, Time, Uid
from concordat.protocol.document import Document

SCHEMA: Literal["concordat.dev/round-contract/v1"] = "concordat.dev/round-contract/v1"


class ContractRound(Model):
    """The round the contract is for."""

    name: Name
    namespace: Name
    uid: Uid
    generation: Annotated[int, Field(ge=0, le=2**53 - 1)]


class ParentRelease(Model):
    """The release the round starts from."""

    name: Name
    sequence: Annotated[int, Field(ge=0, le=2**31 - 1)]


class ContractSite(Model):
    """A site of the round and the key that its statements must be signed by."""

    name: Name
    key_thumbprint: KeyThumbprint
    public_key: PublicKeyPem


class ContractRecipe(Recipe):
    """The recipe with nothing left open."""

    train_factor: Factor
    image: ImageRef
    """Image of the training Job, by digest."""


class Contract(Document):
    """The frozen spec of a round with the selected sites, the resolved parent and the deadlines."""

    FILE: ClassVar[str] = "contract.json"
    STATEMENT_FILE: ClassVar[str] = "contract.sigstore.json"
    """Beside it in the same artifact: the statement by which the hub signs it."""
    LIMIT: ClassVar[int] = 1 << 20

    schema_: Annotated[Literal["concordat.dev/round-contract/v1"], Field(alias="schema")] = SCHEMA
    federation: ShortName
    round: ContractRound
    base: ArtifactRef
    parent: ArtifactRef
    parent_release: ParentRelease
    sites: Annotated[list[ContractSite], Field(min_length=1, max_length=1000)]
    """Sorted by name."""
    quorum: Annotated[int, Field(ge=1, le=1000)]
    budget: Budget
    recipe: ContractRecipe
    gates: Gates
    attestation: Attestation
    screening: Screening
    aggregation: Aggregation
    evaluation: Evaluation
    runtime_class_name: Name | None = None
    """RuntimeClass of the training and evaluation Jobs; absent: the cluster's default."""
    opens: Time
    consent_deadline: Time
    submission_deadline: Time

    def site(self, name: str) -> ContractSite | None:
        """Return the entry of a site, or None if it is not part of the round."""
        return next((s for s in self.sites if s.name == name), None)

    @property
    def image(self) -> str:
        """The image of the training Job, by digest."""
        return self.recipe.image
