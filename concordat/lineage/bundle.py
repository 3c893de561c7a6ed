"""A bundle of statements, one on each line, and its statements by what they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from concordat.lineage.errors import LineageError
from concordat.protocol.artifact_types import MAX_LINEAGE
from concordat.statements import StatementError, Unverified, one_line, unverified
from concordat.statements.fields import predicate_type
from concordat.statements.names import (
    AGGREGATION,
    AGGREGATOR,
    CLOSURE,
    CONTRACT,
    LOCAL_UPDATE,
    PROVENANCE,
    RELEASE,
    SCAI,
    VSA,
)
from concordat.statements.provenance import read_provenance
from concordat.statements.summary import read_summary

MAX_STATEMENTS = 5120
"""A contract has at most 1000 sites, each with four statements."""


class StatementKind(StrEnum):
    """What a statement is about."""

    CONTRACT = "contract"
    CONSENT = "consent"
    UPDATE = "update"
    GRANT = "grant"
    VERDICT = "verdict"
    CLOSURE = "closure"
    AGGREGATION = "aggregation"
    EVALUATION = "evaluation"
    RELEASE = "release"


@dataclass(frozen=True)
class Line:
    """One statement of a bundle, not verified yet."""

    data: bytes
    content: Unverified


def bundle(statements: Iterable[bytes]) -> bytes:
    """Statements as one file: each once, on its own line, sorted. Raises LineageError for what is no statement."""
    try:
        lines = {one_line(statement) for statement in statements}
    except StatementError as error:
        raise LineageError(f"a statement for the bundle cannot be read: {error}") from None
    return b"".join(line + b"\n" for line in sorted(lines))


def by_kind(data: bytes, contract_digest: str) -> dict[StatementKind, list[Line]]:
    """Return the statements of a bundle, by what they claim to be.

    Raises LineageError for any that cannot belong to it.

    Of the summaries, one about the contract is a consent, one by the aggregator a verdict, any other an evaluation.
    """
    if len(data) > MAX_LINEAGE:
        raise LineageError(f"the bundle has {len(data)} bytes, at most {MAX_LINEAGE} are read")
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if len(lines) > MAX_STATEMENTS:
        raise LineageError(f"the bundle has {len(lines)} statements, at most {MAX_STATEMENTS} are read")
    found: dict[StatementKind, list[Line]] = {kind: [] for kind in StatementKind}
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            content = unverified(line)
            kind = _kind(content, contract_digest)
        except StatementError as error:
            raise LineageError(f"line {number} of the bundle is no statement of a round: {error}") from None
        if content.id in seen:
            raise LineageError(f"{kind} {content.id} is in the bundle twice")
        seen.add(content.id)
        found[kind].append(Line(line, content))
    return found


def _kind(content: Unverified, contract_digest: str) -> StatementKind:
    type_ = predicate_type(content)
    if type_ in _BY_TYPE:
        return _BY_TYPE[type_]
    if type_ == VSA:
        summary = read_summary(content)
        if summary.subject == contract_digest:
            return StatementKind.CONSENT
        return StatementKind.VERDICT if summary.verifier == AGGREGATOR else StatementKind.EVALUATION
    if type_ == PROVENANCE:
        definition = content.statement["predicate"].get("buildDefinition")
        local = isinstance(definition, dict) and definition.get("buildType") == LOCAL_UPDATE
        read_provenance(content, LOCAL_UPDATE if local else AGGREGATION)
        return StatementKind.UPDATE if local else StatementKind.AGGREGATION
    raise LineageError(f"the bundle has a statement of another kind, {type_[:80]!r}")


_BY_TYPE = {
    CONTRACT: StatementKind.CONTRACT,
    SCAI: StatementKind.GRANT,
    CLOSURE: StatementKind.CLOSURE,
    RELEASE: StatementKind.RELEASE,
}
