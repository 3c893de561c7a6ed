"""Whether a contract is what the Update says, made by the hub, and meant for this site with its own key."""

from __future__ import annotations

from concordat.api import Update
from concordat.api.contract import Contract
from concordat.lineage import Trust
from concordat.statements import PublicKey, StatementError, canonical, open_bundle, sha256_digest
from concordat.statements.readers import read_contract


class ContractRefused(Exception):
    """The contract must not be relied on. The message says why."""


def verify(document: bytes, statement: bytes, *, update: Update, site: str, key: PublicKey, trust: Trust) -> Contract:
    """The contract of an Update, from contract.json and its signed statement. Raises ContractRefused."""
    spec = update.spec
    found = sha256_digest(document)
    _demand(found == spec.contract_digest, f"contract.json has digest {found}, the Update names {spec.contract_digest}")
    try:
        signed = open_bundle(statement, trust.contract_keys)
        stated = read_contract(signed)
        same = canonical(signed.statement["predicate"]) == document
    except StatementError as error:
        raise ContractRefused(f"the contract's statement is not valid: {error}") from None
    _demand(stated.digest == found, f"the statement is about {stated.digest}, contract.json has digest {found}")
    _demand(same, "contract.json is not the document that was signed")
    contract = stated.contract
    _demand(spec.site == site, f"the Update is for site {spec.site!r}, this is {site!r}")
    for field, ours, theirs in (
        ("federation", spec.federation, contract.federation),
        ("round uid", spec.round_ref.uid, contract.round.uid),
        ("round name", spec.round_ref.name, contract.round.name),
        ("consentDeadline", spec.consent_deadline, contract.consent_deadline),
        ("submissionDeadline", spec.submission_deadline, contract.submission_deadline),
    ):
        _demand(ours == theirs, f"{field} is {theirs} in the contract, {ours} in the Update")
    entry = contract.site(site)
    if entry is None:
        raise ContractRefused(f"site {site!r} is not in the contract")
    try:
        listed = PublicKey.from_pem(entry.public_key)
    except StatementError as error:
        raise ContractRefused(f"this site's key in the contract cannot be read: {error}") from None
    _demand(
        listed == key and entry.key_thumbprint == key.thumbprint,
        f"the contract lists key {entry.key_thumbprint} for this site, its key is {key.thumbprint}",
    )
    _demand(contract.recipe.image is not None, "recipe.image is missing in the contract")
    return contract


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractRefused(otherwise)
