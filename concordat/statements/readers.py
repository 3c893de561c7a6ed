"""Typed reading of verified statements. Each reader refuses a statement of another kind or form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from concordat.protocol.contract import Contract
from concordat.statements.dsse import Signed, Unverified
from concordat.statements.errors import MalformedStatement
from concordat.statements.predicates import (
    AGGREGATION,
    CLOSURE,
    CONTRACT,
    DECISION,
    LOCAL_UPDATE,
    PROVENANCE,
    RELEASE,
    VSA,
)

Readable = Signed | Unverified


@dataclass(frozen=True)
class ContractStatement:
    """A contract and the digest of its file."""

    id: str
    digest: str
    contract: Contract


@dataclass(frozen=True)
class Provenance:
    """How an artifact was made: an update or an aggregation."""

    id: str
    subject: str
    build_type: str
    builder: str
    parameters: Mapping[str, Any]
    dependencies: Mapping[str, tuple[str, ...]]
    """Role to digests."""
    extension: Mapping[str, Any]

    def one(self, role: str) -> str:
        """The digest of the only dependency in that role; raises MalformedStatement if there is none or several."""
        found = self.dependencies.get(role, ())
        if len(found) != 1:
            raise MalformedStatement(f"resolvedDependencies has {len(found)} entries with role {role!r}, expected 1")
        return found[0]


@dataclass(frozen=True)
class Summary:
    """A verdict: consent, acceptance, evaluation or decision."""

    id: str
    subject: str
    verifier: str
    resource: str
    policy: str
    inputs: tuple[str, ...]
    passed: bool
    levels: tuple[str, ...]
    """What was verified, for example CONCORDAT_CONSENTED."""
    site: str
    reason: str
    extension: Mapping[str, Any]


@dataclass(frozen=True)
class Closure:
    """All verdicts of a round."""

    id: str
    contract: str
    verdicts: tuple[str, ...]
    accepted: int
    rejected: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class ReleaseStatement:
    """The release of an approved candidate."""

    id: str
    subject: str
    federation: str
    sequence: int
    supersedes: str | None
    contract: str
    provenance: str
    evaluation: str


def predicate_type(signed: Readable) -> str:
    """The kind of the statement."""
    return str(signed.statement["predicateType"])


def _get(value: Any, *path: str, type_: type) -> Any:
    for step in path:
        if not isinstance(value, dict) or step not in value:
            raise MalformedStatement(f"{'.'.join(path)} is missing")
        value = value[step]
    if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
        raise MalformedStatement(f"{'.'.join(path)} is not a {type_.__name__}")
    return value


def _sha256(value: Any, what: str) -> str:
    digest = _get(value, "digest", "sha256", type_=str)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise MalformedStatement(f"{what}: the digest is not 64 lower-case hex digits")
    return f"sha256:{digest}"


def _subject(signed: Readable) -> str:
    subjects = signed.statement["subject"]
    if len(subjects) != 1:
        raise MalformedStatement(f"subject has {len(subjects)} entries, expected 1")
    return _sha256(subjects[0], "subject")


def _predicate(signed: Readable, type_: str) -> dict[str, Any]:
    if predicate_type(signed) != type_:
        raise MalformedStatement(f"predicateType is {predicate_type(signed)[:80]!r}, expected {type_!r}")
    predicate: dict[str, Any] = signed.statement["predicate"]
    return predicate


def read_contract(signed: Readable) -> ContractStatement:
    """The contract."""
    try:
        contract = Contract.model_validate(_predicate(signed, CONTRACT))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the contract"
        raise MalformedStatement(f"the contract is not valid: {where}: {first['msg']}") from error
    return ContractStatement(signed.id, _subject(signed), contract)


def read_provenance(signed: Readable, build_type: str) -> Provenance:
    """Provenance of that build type."""
    p = _predicate(signed, PROVENANCE)
    found = _get(p, "buildDefinition", "buildType", type_=str)
    if found != build_type:
        raise MalformedStatement(f"buildType is {found[:80]!r}, expected {build_type!r}")
    dependencies: dict[str, tuple[str, ...]] = {}
    for entry in _get(p, "buildDefinition", "resolvedDependencies", type_=list):
        role = _get(entry, "annotations", "role", type_=str)
        dependencies[role] = (*dependencies.get(role, ()), _sha256(entry, role))
    extension = p.get(build_type, {})
    return Provenance(
        id=signed.id,
        subject=_subject(signed),
        build_type=found,
        builder=_get(p, "runDetails", "builder", "id", type_=str),
        parameters=_get(p, "buildDefinition", "externalParameters", type_=dict),
        dependencies=dependencies,
        extension=extension if isinstance(extension, dict) else {},
    )


def read_update(signed: Readable) -> Provenance:
    """A site's update."""
    return read_provenance(signed, LOCAL_UPDATE)


def read_aggregation(signed: Readable) -> Provenance:
    """The hub's aggregation."""
    return read_provenance(signed, AGGREGATION)


def read_summary(signed: Readable) -> Summary:
    """A consent, a verdict on an update, an evaluation or a decision."""
    p = _predicate(signed, VSA)
    result = _get(p, "verificationResult", type_=str)
    if result not in {"PASSED", "FAILED"}:
        raise MalformedStatement(f"verificationResult is {result[:20]!r}, expected PASSED or FAILED")
    extension = _get(p, DECISION, type_=dict)
    levels = _get(p, "verifiedLevels", type_=list)
    if not all(isinstance(level, str) for level in levels):
        raise MalformedStatement("verifiedLevels must be a list of strings")
    return Summary(
        id=signed.id,
        subject=_subject(signed),
        verifier=_get(p, "verifier", "id", type_=str),
        resource=_get(p, "resourceUri", type_=str),
        policy=_sha256(_get(p, "policy", type_=dict), "policy"),
        inputs=tuple(_sha256(i, "inputAttestations") for i in _get(p, "inputAttestations", type_=list)),
        passed=result == "PASSED",
        levels=tuple(levels),
        site=_get(extension, "site", type_=str),
        reason=_get(extension, "reason", type_=str),
        extension=extension,
    )


def read_closure(signed: Readable) -> Closure:
    """All verdicts of a round."""
    p = _predicate(signed, CLOSURE)
    contract = _get(p, "contract", type_=str)
    if _subject(signed) != contract:
        raise MalformedStatement("the closure's subject is not its contract")
    verdicts, missing = _get(p, "verdicts", type_=list), _get(p, "missing", type_=list)
    if not all(isinstance(v, str) for v in [*verdicts, *missing]):
        raise MalformedStatement("verdicts and missing must be lists of strings")
    return Closure(
        id=signed.id,
        contract=contract,
        verdicts=tuple(verdicts),
        accepted=_get(p, "accepted", type_=int),
        rejected=_get(p, "rejected", type_=int),
        missing=tuple(missing),
    )


def read_release(signed: Readable) -> ReleaseStatement:
    """A release."""
    p = _predicate(signed, RELEASE)
    return ReleaseStatement(
        id=signed.id,
        subject=_subject(signed),
        federation=_get(p, "federation", type_=str),
        sequence=_get(p, "sequence", type_=int),
        supersedes=_get(p, "supersedes", type_=str) if "supersedes" in p else None,
        contract=_get(p, "contract", type_=str),
        provenance=_get(p, "provenance", type_=str),
        evaluation=_get(p, "evaluation", type_=str),
    )
