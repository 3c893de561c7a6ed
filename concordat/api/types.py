"""Bounded field types of the API. Every bound becomes part of the CRD, which is what lets CEL rules be costed.

There are no floats in the API: measured quality is an integer in parts per million, real-valued settings are
decimal strings (Kubernetes API conventions, "Primitive types").
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "concordat.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

LABEL_ROUND = f"{GROUP}/round"
LABEL_ROUND_UID = f"{GROUP}/round-uid"
LABEL_SITE = f"{GROUP}/site"
LABEL_FEDERATION = f"{GROUP}/federation"
LABEL_RELEASE = f"{GROUP}/release"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "concordat-operator"
FINALIZER = f"{GROUP}/round-cleanup"
ANNOTATION_KEEP = f"{GROUP}/keep"
"""On a FederationRound or a Release of the hub, with the value "true": its history limit does not apply to it."""

T = TypeVar("T")


def rules(*cel: dict[str, Any]) -> dict[str, Any]:
    """CEL rules for `json_schema_extra`; each is a dict with `rule` and `message` (and optionally `fieldPath`)."""
    return {"x-kubernetes-validations": list(cel)}


def map_list(*keys: str) -> dict[str, Any]:
    """`json_schema_extra` of a list that server-side apply merges by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


SET = {"x-kubernetes-list-type": "set"}
"""`json_schema_extra` of a list of different values."""
ATOMIC = {"x-kubernetes-list-type": "atomic"}
"""`json_schema_extra` of a list whose order counts: it is replaced as a whole."""


class Model(BaseModel):
    """Base of all API types: camelCase on the wire, lenient on read so that a newer CRD cannot crash an old reader."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )

    def wire(self) -> dict[str, Any]:
        """Return the object as it is sent: camelCase, absent fields left out, JSON types only."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


# JSON Schema `pattern` is unanchored in both pydantic and the API server, hence ^ and $ everywhere.
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ShortName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Uid = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
Sha256 = Annotated[str, Field(min_length=71, max_length=71, pattern=r"^sha256:[a-f0-9]{64}$")]
Repository = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$")]
ImageRef = Annotated[
    str, Field(min_length=1, max_length=512, pattern=r"^[a-z0-9][a-zA-Z0-9._:/-]*@sha256:[a-f0-9]{64}$")
]
LabelKey = Annotated[
    str, Field(min_length=1, max_length=317, pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")]
Decimal6 = Annotated[str, Field(min_length=1, max_length=13, pattern=r"^[0-9]{1,6}(\.[0-9]{1,6})?$")]
SignedDecimal = Annotated[str, Field(min_length=1, max_length=14, pattern=r"^-?[0-9]{1,6}(\.[0-9]{1,6})?$")]
MeasureName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z][A-Za-z0-9]*$")]
CpuQuantity = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3})$")]
MemoryQuantity = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")]
Ppm = Annotated[int, Field(ge=0, le=1_000_000)]
SignedPpm = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Message = Annotated[str, Field(max_length=1024)]
ReasonText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$")]
PublicKeyPem = Annotated[str, Field(min_length=1, max_length=1024)]
KeyThumbprint = Annotated[str, Field(min_length=50, max_length=50, pattern=r"^SHA256:[A-Za-z0-9+/]{43}$")]


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2026-11-24T12:00:00Z")
    return value


Time = Annotated[datetime, AfterValidator(_aware)]


class ObjectMeta(Model):
    """The part of Kubernetes object metadata that Concordat reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: list[str] = Field(default_factory=list)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class ArtifactRef(Model):
    """A content-addressed artifact in the artifact registry."""

    repository: Repository
    """Repository in the hub's artifact registry."""
    digest: Sha256
    """Digest of the artifact's OCI manifest; whatever comes from the registry is hashed before it is used."""


class NameRef(Model):
    """A reference to an object by name, in the namespace where the referring object lives."""

    name: Name
    """Name of the object."""


class RoundRef(Model):
    """The round an object belongs to."""

    name: Name
    """Name of the FederationRound."""
    namespace: Name
    """Namespace of the FederationRound (the hub)."""
    uid: Uid
    """UID of the FederationRound; a round of the same name created later is another round."""
