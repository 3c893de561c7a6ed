"""The closure of a round: all its verdicts, so that none can be left out later."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concordat.protocol.contract import Contract
from concordat.statements.errors import MalformedStatement
from concordat.statements.fields import Readable, get, predicate, rfc3339, statement, subject, texts, time_at
from concordat.statements.names import CLOSURE


@dataclass(frozen=True, kw_only=True)
class Closure:
    """All verdicts of a round."""

    contract: str
    """Digest of contract.json."""
    verdicts: tuple[str, ...]
    """Ids of the statements, sorted."""
    accepted: int
    rejected: int
    missing: tuple[str, ...]
    """Sites that submitted nothing, sorted."""
    closed: datetime
    id: str = field(default="", compare=False)
    """Of the statement that was read."""

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign."""
        content = {
            "contract": self.contract,
            "verdicts": list(self.verdicts),
            "accepted": self.accepted,
            "rejected": self.rejected,
            "missing": list(self.missing),
            "closedAt": rfc3339(self.closed),
        }
        return statement(Contract.FILE, self.contract, CLOSURE, content)


def read_closure(signed: Readable) -> Closure:
    """Read a closure. Raises MalformedStatement."""
    content = predicate(signed, CLOSURE)
    contract = get(content, "contract", type_=str)
    if subject(signed)[1] != contract:
        raise MalformedStatement("the closure's subject is not its contract")
    return Closure(
        id=signed.id,
        contract=contract,
        verdicts=texts(content, "verdicts"),
        accepted=get(content, "accepted", type_=int),
        rejected=get(content, "rejected", type_=int),
        missing=texts(content, "missing"),
        closed=time_at(content, "closedAt"),
    )
