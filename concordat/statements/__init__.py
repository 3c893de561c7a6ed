"""Signed statements: what must be provable later. DSSE, in-toto, Sigstore bundles, P-256."""

from concordat.statements.dsse import (
    Signed,
    Unverified,
    one_line,
    open_bundle,
    sign,
    unverified,
)
from concordat.statements.errors import MalformedStatement, SignatureInvalid, StatementError
from concordat.statements.keys import PublicKey, SigningKey, write_once_key

__all__ = [
    "MalformedStatement",
    "PublicKey",
    "SignatureInvalid",
    "Signed",
    "SigningKey",
    "StatementError",
    "Unverified",
    "one_line",
    "open_bundle",
    "sign",
    "unverified",
    "write_once_key",
]
