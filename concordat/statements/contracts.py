"""The one verification of a contract, for everybody who relies on it: operator, aggregator, agent, lineage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.statements.dsse import open_bundle
from concordat.statements.errors import StatementError
from concordat.statements.keys import PublicKey
from concordat.statements.readers import read_contract


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


def open_contract(
    statement: bytes, hub_keys: Collection[PublicKey], *, digest: str, document: bytes | None = None
) -> SignedContract:
    """Verify a contract by its statement, which holds it, and by the digest under which it is known.

    `document` is contract.json, where it was fetched beside the statement. Raises StatementError: SignatureInvalid if
    none of the hub's keys signed it, MalformedStatement, ContractInvalid.
    """
    signed = open_bundle(statement, hub_keys)
    stated = read_contract(signed)
    contract, written = stated.contract, canonical(signed.statement["predicate"])
    found = sha256_digest(written)
    _demand(stated.digest == found, f"the statement is about {stated.digest}, the contract in it has digest {found}")
    _demand(found == digest, f"its digest is {found}, contractDigest is {digest}")
    _demand(document is None or document == written, f"{Contract.FILE} is not the document that was signed")
    _demand(contract.recipe.image is not None, "recipe.image is missing in the contract")
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
