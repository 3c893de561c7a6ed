"""A site's proof that it holds a key: signed by that key, about itself, for one Site object and no other."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from concordat.protocol.canonical import sha256_digest
from concordat.statements.dsse import open_bundle, sign
from concordat.statements.errors import MalformedStatement
from concordat.statements.fields import get, predicate, statement, subject
from concordat.statements.keys import PublicKey, SigningKey
from concordat.statements.names import ENROLMENT

_SUBJECT = "public-key"


def enrolment(key: PublicKey, site: str, site_uid: str, signer: SigningKey) -> bytes:
    """Return the bundle: `signer` says that `key` is the key of that Site.

    Signed by the key itself it proves that the site holds it; by the key before it, that the site itself replaces that
    one.
    """
    return sign(_statement(key, site, site_uid), signer)


@lru_cache(maxsize=4096)
def check_enrolment(bundle: bytes, signer: PublicKey, key: PublicKey, site: str, site_uid: str) -> None:
    """Demand that `signer` signed that `key` is the key of that Site. Raises StatementError."""
    signed = open_bundle(bundle, [signer])
    content, (_, about) = predicate(signed, ENROLMENT), subject(signed)
    found = (get(content, "site", type_=str), get(content, "siteUid", type_=str))
    if found != (site, site_uid):
        raise MalformedStatement(f"the proof is of Site {found[0]} with uid {found[1]}, not of {site} with {site_uid}")
    if about != _digest(key):
        raise MalformedStatement("the proof is of another key")


def _statement(key: PublicKey, site: str, site_uid: str) -> dict[str, Any]:
    return statement(_SUBJECT, _digest(key), ENROLMENT, {"site": site, "siteUid": site_uid})


def _digest(key: PublicKey) -> str:
    return sha256_digest(key.spki)
