"""SLSA verification summary v1: a consent, a verdict on an update, an evaluation or a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concordat.protocol.aggregation import ReportedUpdate
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
    texts,
    time_at,
)
from concordat.statements.names import (
    ACCEPTED,
    AGGREGATOR,
    CONSENTED,
    DECISION,
    VSA,
    agent_id,
    round_resource,
    update_resource,
)

_FAILED = ("FAILED",)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Somebody's verdict on a file."""

    file: str
    subject: str
    """Digest of the file."""
    verifier: str
    resource: str
    policy: str
    """Digest of the rules it was judged by."""
    inputs: tuple[str, ...] = ()
    """Ids of the statements that it rests on."""
    levels: tuple[str, ...]
    """What was verified, for example CONCORDAT_CONSENTED."""
    site: str
    """Who judged, or whose update was judged."""
    reason: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    @property
    def passed(self) -> bool:
        """Whether the verdict is a yes."""
        return self.levels != _FAILED

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign."""
        content: dict[str, Any] = {
            "verifier": {"id": self.verifier},
            "timeVerified": rfc3339(self.at),
            "resourceUri": self.resource,
            "policy": {"digest": digest_set(self.policy)},
            "inputAttestations": [{"digest": digest_set(id_)} for id_ in self.inputs],
            "verificationResult": "PASSED" if self.passed else "FAILED",
            "verifiedLevels": list(self.levels),
            DECISION: {**self.details, "site": self.site, "reason": self.reason},
        }
        return statement(self.file, self.subject, VSA, content)


def levels(passed: bool, level: str) -> tuple[str, ...]:
    """Return the levels of a verdict of one kind."""
    return ("SLSA_BUILD_LEVEL_UNEVALUATED", level) if passed else _FAILED


def read_summary(signed: Readable) -> Summary:
    """Read any verdict. Raises MalformedStatement."""
    content = predicate(signed, VSA)
    result, verified = get(content, "verificationResult", type_=str), texts(content, "verifiedLevels")
    if result not in {"PASSED", "FAILED"}:
        raise MalformedStatement(f"verificationResult is {result[:20]!r}, expected PASSED or FAILED")
    if (result == "FAILED") != (verified == _FAILED):
        raise MalformedStatement(f"verificationResult is {result}, but verifiedLevels says something else")
    details = dict(get(content, DECISION, type_=dict))
    file, digest = subject(signed)
    return Summary(
        id=signed.id,
        file=file,
        subject=digest,
        verifier=get(content, "verifier", "id", type_=str),
        resource=get(content, "resourceUri", type_=str),
        policy=sha256(get(content, "policy", type_=dict), "policy"),
        inputs=tuple(sha256(i, "inputAttestations") for i in get(content, "inputAttestations", type_=list)),
        levels=verified,
        site=get(details, "site", type_=str),
        reason=get(details, "reason", type_=str),
        at=time_at(content, "timeVerified"),
        details={name: value for name, value in details.items() if name not in ("site", "reason")},
    )


def consent(
    *, site: str, round_uid: str, contract_digest: str, policy_digest: str, passed: bool, reason: str, at: datetime
) -> Summary:
    """Return a site's answer to a contract. Signed by the site's key, it also proves possession of it."""
    return Summary(
        file=Contract.FILE,
        subject=contract_digest,
        verifier=agent_id(site),
        resource=round_resource(round_uid),
        policy=policy_digest,
        levels=levels(passed, CONSENTED),
        site=site,
        reason=reason,
        at=at,
    )


def verdict(round_uid: str, contract_digest: str, update: ReportedUpdate, at: datetime) -> Summary:
    """Return the hub's verdict on one update, by the rules of the contract."""
    details: dict[str, Any] = {"measurements": dict(update.measurements), "alerts": sorted(update.alerts)}
    if update.norm is not None:
        details["norm"] = update.norm
    return Summary(
        file=DELTA_FILE,
        subject=update.update_sha256,
        verifier=AGGREGATOR,
        resource=update_resource(round_uid, update.site),
        policy=contract_digest,
        inputs=() if update.statement_id is None else (update.statement_id,),
        levels=levels(update.passed, ACCEPTED),
        site=update.site,
        reason=update.reason,
        at=at,
        details=details,
    )
