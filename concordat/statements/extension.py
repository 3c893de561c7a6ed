"""More time for a round: later deadlines of a contract, signed by the hub with the key that signed the contract."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concordat.protocol.contract import Contract
from concordat.statements.dsse import open_bundle
from concordat.statements.errors import MalformedStatement
from concordat.statements.fields import predicate, rfc3339, statement, subject, time_at
from concordat.statements.keys import PublicKey
from concordat.statements.names import EXTENSION


@dataclass(frozen=True, kw_only=True)
class Extension:
    """Until when the sites of a contract may answer, instead of what the contract says."""

    contract: str
    """Digest of contract.json."""
    consent_deadline: datetime
    submission_deadline: datetime

    def statement(self) -> dict[str, Any]:
        """Return the statement to sign."""
        content = {
            "consentDeadline": rfc3339(self.consent_deadline),
            "submissionDeadline": rfc3339(self.submission_deadline),
        }
        return statement(Contract.FILE, self.contract, EXTENSION, content)


def open_extension(bundle: bytes, hub_keys: Collection[PublicKey], contract_digest: str) -> Extension:
    """Verify an extension of a contract. Raises StatementError: SignatureInvalid, MalformedStatement."""
    signed = open_bundle(bundle, hub_keys)
    content = predicate(signed, EXTENSION)
    about = subject(signed)[1]
    if about != contract_digest:
        raise MalformedStatement(f"the extension is of contract {about}, not of {contract_digest}")
    return Extension(
        contract=about,
        consent_deadline=time_at(content, "consentDeadline"),
        submission_deadline=time_at(content, "submissionDeadline"),
    )
