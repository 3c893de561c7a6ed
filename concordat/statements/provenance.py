"""SLSA provenance v1: how a site made its update, and how the hub made a candidate. No SLSA level is claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concordat.api.types import ArtifactRef
from concordat.protocol.aggregation import AggregationReport
from concordat.protocol.artifact_types import DELTA_FILE
from concordat.protocol.contract import Contract
from concordat.statements.errors import MalformedStatement
from concordat.statements.fields import (
    Readable,
    digest_set,
    get,
    predicate,
    rfc3339,
    sha256,
    statement,
    subject,
    time_at,
)
from concordat.statements.names import ADAPTER_SUBJECT, AGGREGATION, AGGREGATOR, LOCAL_UPDATE, PROVENANCE, agent_id


@dataclass(frozen=True)
class Dependency:
    """Something that went into an artifact."""

    role: str
    digest: str
    uri: str | None = None

    @classmethod
    def artifact(cls, role: str, ref: ArtifactRef) -> Dependency:
        """Return the dependency on an artifact of the registry."""
        return cls(role, ref.digest, f"oci://{ref.repository}@{ref.digest}")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How an artifact was made: an update or an aggregation."""

    file: str
    subject: str
    """Digest of the file."""
    build_type: str
    builder: str
    parameters: Mapping[str, Any]
    dependencies: tuple[Dependency, ...]
    finished: datetime
    extension: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    def all(self, role: str) -> tuple[str, ...]:
        """Return the digests of all dependencies in that role."""
        return tuple(dependency.digest for dependency in self.dependencies if dependency.role == role)

    def one(self, role: str) -> str:
        """Return the digest of the only dependency in that role. Raises MalformedStatement."""
        found = self.all(role)
        if len(found) != 1:
            raise MalformedStatement(f"resolvedDependencies has {len(found)} entries with role {role!r}, expected 1")
        return found[0]

    @property
    def roles(self) -> set[str]:
        """Roles of all dependencies."""
        return {dependency.role for dependency in self.dependencies}

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign."""
        content: dict[str, Any] = {
            "buildDefinition": {
                "buildType": self.build_type,
                "externalParameters": dict(self.parameters),
                "resolvedDependencies": [_written(dependency) for dependency in self.dependencies],
            },
            "runDetails": {"builder": {"id": self.builder}, "metadata": {"finishedOn": rfc3339(self.finished)}},
        }
        if self.extension:
            content[self.build_type] = dict(self.extension)
        return statement(self.file, self.subject, PROVENANCE, content)


def read_provenance(signed: Readable, build_type: str) -> Provenance:
    """Read provenance of that build type. Raises MalformedStatement."""
    content = predicate(signed, PROVENANCE)
    found = get(content, "buildDefinition", "buildType", type_=str)
    if found != build_type:
        raise MalformedStatement(f"buildType is {found[:80]!r}, expected {build_type!r}")
    extension = content.get(build_type, {})
    file, digest = subject(signed)
    return Provenance(
        id=signed.id,
        file=file,
        subject=digest,
        build_type=found,
        builder=get(content, "runDetails", "builder", "id", type_=str),
        parameters=get(content, "buildDefinition", "externalParameters", type_=dict),
        dependencies=tuple(
            _read(entry) for entry in get(content, "buildDefinition", "resolvedDependencies", type_=list)
        ),
        finished=time_at(content, "runDetails", "metadata", "finishedOn"),
        extension=extension if isinstance(extension, dict) else {},
    )


def read_update(signed: Readable) -> Provenance:
    """Read a site's update. Raises MalformedStatement."""
    return read_provenance(signed, LOCAL_UPDATE)


def read_aggregation(signed: Readable) -> Provenance:
    """Read the hub's aggregation. Raises MalformedStatement."""
    return read_provenance(signed, AGGREGATION)


@dataclass(frozen=True)
class LocalUpdate:
    """What a site states of its update."""

    sha256: str
    """Digest of the file delta.safetensors."""
    consent_id: str
    grant_id: str
    steps: int
    examples: int
    norm: str
    clipped: bool
    finished: datetime


def update_provenance(site: str, contract: Contract, contract_digest: str, update: LocalUpdate) -> Provenance:
    """Return how a site made its update."""
    return Provenance(
        file=DELTA_FILE,
        subject=update.sha256,
        build_type=LOCAL_UPDATE,
        builder=agent_id(site),
        parameters={"round": contract.round.uid, "site": site, "contract": contract_digest},
        dependencies=(
            Dependency.artifact("base", contract.base),
            Dependency.artifact("parent", contract.parent),
            Dependency("contract", contract_digest),
            Dependency("consent", update.consent_id),
            Dependency("grant", update.grant_id),
        ),
        finished=update.finished,
        extension={
            "steps": update.steps,
            "examples": update.examples,
            "norm": update.norm,
            "clipped": update.clipped,
        },
    )


def aggregation_provenance(
    contract: Contract, report: AggregationReport, closure_id: str, finished: datetime
) -> Provenance:
    """Return what the candidate of a report was made of. Raises ValueError if the report has none."""
    if report.adapter is None:
        raise ValueError("the report has no candidate")
    updates = sorted(update.statement_id for update in report.verdicts if update.passed and update.statement_id)
    return Provenance(
        file=ADAPTER_SUBJECT,
        subject=report.adapter.digest,
        build_type=AGGREGATION,
        builder=AGGREGATOR,
        parameters={
            "round": contract.round.uid,
            "contract": report.contract_digest,
            "rule": report.rule.value,
            "preAggregation": report.pre_aggregation.value,
            "lora": report.lora.value,
            "rejected": report.rejected,
        },
        dependencies=(
            Dependency.artifact("base", contract.base),
            Dependency.artifact("parent", contract.parent),
            Dependency("contract", report.contract_digest),
            Dependency("closure", closure_id),
            *(Dependency("update", id_) for id_ in updates),
        ),
        finished=finished,
    )


def _written(dependency: Dependency) -> dict[str, Any]:
    entry: dict[str, Any] = {"digest": digest_set(dependency.digest), "annotations": {"role": dependency.role}}
    return entry if dependency.uri is None else {**entry, "uri": dependency.uri}


def _read(entry: Any) -> Dependency:
    role = get(entry, "annotations", "role", type_=str)
    uri = get(entry, "uri", type_=str) if "uri" in entry else None
    return Dependency(role, sha256(entry, role), uri)
