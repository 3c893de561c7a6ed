"""The hub's release of an approved candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from concordat.statements.fields import Readable, get, predicate, statement, subject
from concordat.statements.names import ADAPTER_SUBJECT, RELEASE


@dataclass(frozen=True, kw_only=True)
class ReleaseStatement:
    """What is released, and what it rests on."""

    subject: str
    """Digest of the adapter's artifact."""
    federation: str
    sequence: int
    supersedes: str | None
    """Digest of the parent adapter's artifact."""
    contract: str
    """Digest of contract.json."""
    provenance: str
    """Id of the aggregation's statement."""
    evaluation: str
    """Id of the evaluation's statement."""
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign."""
        content: dict[str, Any] = {
            "federation": self.federation,
            "sequence": self.sequence,
            "contract": self.contract,
            "provenance": self.provenance,
            "evaluation": self.evaluation,
        }
        if self.supersedes is not None:
            content["supersedes"] = self.supersedes
        return statement(ADAPTER_SUBJECT, self.subject, RELEASE, content)


def read_release(signed: Readable) -> ReleaseStatement:
    """Read a release. Raises MalformedStatement."""
    content = predicate(signed, RELEASE)
    return ReleaseStatement(
        id=signed.id,
        subject=subject(signed)[1],
        federation=get(content, "federation", type_=str),
        sequence=get(content, "sequence", type_=int),
        supersedes=get(content, "supersedes", type_=str) if "supersedes" in content else None,
        contract=get(content, "contract", type_=str),
        provenance=get(content, "provenance", type_=str),
        evaluation=get(content, "evaluation", type_=str),
    )
