"""Whether a contract is what the Update says, made by the hub, and meant for this site with its own key."""

from __future__ import annotations

from collections.abc import Collection

from concordat.api import Update
from concordat.lineage import Trust
from concordat.statements import PublicKey, StatementError
from concordat.statements.contract import SignedContract, open_contract
from concordat.statements.extension import open_extension


class ContractRefused(Exception):
    """The contract must not be relied on. The message says why."""


def verify(
    document: bytes,
    statement: bytes,
    *,
    update: Update,
    site: str,
    keys: Collection[PublicKey],
    trust: Trust,
    extension: bytes | None = None,
) -> SignedContract:
    """Return the contract of an Update, from contract.json and its signed statement. Raises ContractRefused.

    `keys` are those that the site holds.
    `extension` is the statement by which the Update shows later deadlines, if it does.
    """
    spec = update.spec
    try:
        signed = open_contract(statement, trust.contract_keys, digest=spec.contract_digest, document=document)
    except StatementError as error:
        raise ContractRefused(f"the contract cannot be relied on: {error}") from None
    contract = signed.contract
    _demand(spec.site == site, f"the Update is for site {spec.site!r}, this is {site!r}")
    for field, ours, theirs in (
        ("federation", spec.federation, contract.federation),
        ("round uid", spec.round_ref.uid, contract.round.uid),
        ("round name", spec.round_ref.name, contract.round.name),
        ("consentDeadline", spec.consent_deadline, contract.consent_deadline),
        ("submissionDeadline", spec.submission_deadline, contract.submission_deadline),
    ):
        _demand(ours == theirs, f"{field} is {theirs} in the contract, {ours} in the Update")
    listed = signed.keys.get(site)
    if listed is None:
        raise ContractRefused(f"site {site!r} is not in the contract")
    held = " and ".join(key.thumbprint for key in keys)
    _demand(listed in keys, f"the contract lists key {listed.thumbprint} for this site, which holds {held}")
    _extended(update, extension, trust, signed.digest)
    return signed


def _extended(update: Update, statement: bytes | None, trust: Trust, digest: str) -> None:
    """Refuse deadlines that the hub did not sign."""
    shown = update.status.extension
    if shown is None:
        return
    try:
        later = open_extension(statement or b"", trust.contract_keys, digest)
    except StatementError as error:
        raise ContractRefused(f"the later deadlines cannot be relied on: {error}") from None
    _demand(
        (later.consent_deadline, later.submission_deadline) == (shown.consent_deadline, shown.submission_deadline),
        "the later deadlines of the Update are not those that the hub signed",
    )


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractRefused(otherwise)
