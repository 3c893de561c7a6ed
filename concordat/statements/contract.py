"""The signed contract, and its one verification, for everybody who relies on it: aggregator, agent, lineage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from concordat.protocol.canonical import NotCanonicalizable, canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.document import DocumentError
from concordat.statements.dsse import open_bundle
from concordat.statements.errors import MalformedStatement, StatementError
from concordat.statements.fields import Readable, predicate, statement, subject
from concordat.statements.keys import PublicKey
from concordat.statements.names import CONTRACT


class ContractInvalid(StatementError):
    """The contract is signed, but must not be relied on. The message says why."""


@dataclass(frozen=True)
class SignedContract:
    """A verified contract."""

    contract: Contract
    document: bytes
    """contract.json, as it was signed."""
    digest: str
    """Of contract.json."""
    id: str
    """Of the statement."""
    keys: Mapping[str, PublicKey]
    """Site to the key that its statements must be signed by; no two sites have the same."""


def contract_statement(contract: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Return the hub's offer. The predicate is the contract itself, so that a bundle of statements is complete."""
    return statement(Contract.FILE, digest, CONTRACT, dict(contract))


def read_contract(signed: Readable) -> tuple[Contract, str]:
    """Return a contract and the digest by which its statement names it. Raises MalformedStatement."""
    try:
        contract = Contract.from_bytes(canonical(predicate(signed, CONTRACT)))
    except (DocumentError, NotCanonicalizable) as error:
        raise MalformedStatement(f"the contract is not valid: {error}") from error
    return contract, subject(signed)[1]


def open_contract(
    bundle: bytes, hub_keys: Collection[PublicKey], *, digest: str, document: bytes | None = None
) -> SignedContract:
    """Verify a contract by its statement, which holds it, and by the digest under which it is known.

    `document` is contract.json, where it was fetched beside the statement. Raises StatementError: SignatureInvalid if
    none of the hub's keys signed it, MalformedStatement, ContractInvalid.
    """
    signed = open_bundle(bundle, hub_keys)
    contract, stated = read_contract(signed)
    written = canonical(signed.statement["predicate"])
    found = sha256_digest(written)
    _demand(stated == found, f"the statement is about {stated}, the contract in it has digest {found}")
    _demand(found == digest, f"its digest is {found}, contractDigest is {digest}")
    _demand(document is None or document == written, f"{Contract.FILE} is not the document that was signed")
    keys = {site.name: PublicKey.from_pem(site.public_key) for site in contract.sites}
    _demand(len(keys) == len(contract.sites), "the contract names a site twice")
    _demand(len(set(keys.values())) == len(keys), "the contract gives two sites one key")
    for site in contract.sites:
        _demand(
            keys[site.name].thumbprint == site.key_thumbprint,
            f"the contract gives site {site.name} the thumbprint {site.key_thumbprint}, its publicKey has another",
        )
    return SignedContract(contract, written, digest, signed.id, keys)


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ContractInvalid(otherwise)
