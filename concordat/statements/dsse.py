"""Sigstore bundle v0.3 around one DSSE envelope around one in-toto Statement v1.

Specifications: DSSE protocol 1.0.2 (PAE, signature over it), in-toto Statement v1, Sigstore bundle v0.3 with a bare
public key. The bytes verified are the bytes parsed; the keyid decides nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from concordat.protocol.canonical import NotCanonicalizable, canonical, sha256_digest
from concordat.statements.errors import MalformedStatement, SignatureInvalid
from concordat.statements.keys import PublicKey, SigningKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
MAX_BUNDLE = 1 << 20
MAX_DEPTH = 32
_MAX_HINT = 128


@dataclass(frozen=True)
class Signed:
    """A verified statement."""

    statement: dict[str, Any]
    id: str
    """`sha256:` and the digest of the payload: the name by which other statements refer to this one."""
    key: PublicKey


@dataclass(frozen=True)
class Unverified:
    """A statement nobody has vouched for yet: only to decide which key to ask."""

    statement: dict[str, Any]
    id: str


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: dict[str, Any], key: SigningKey) -> bytes:
    """Return the bundle, one line of JSON without a newline."""
    payload = canonical(statement)
    hint = base64.b64encode(hashlib.sha256(key.public.spki).digest()).decode()
    return _bundle(payload, key.sign(pae(PAYLOAD_TYPE, payload)), key.public.thumbprint, hint)


def one_line(data: bytes) -> bytes:
    """Return the same statement as `sign` would have written it: on one line, and without what nobody verifies.

    A site may send its bundle in any form; in a bundle of many, a line must be a line and padding costs everybody.
    """
    payload, signature = _envelope(data)
    bundle = _json(data)
    keyid = bundle["dsseEnvelope"]["signatures"][0].get("keyid")
    material = bundle.get("verificationMaterial")
    public_key = material.get("publicKey") if isinstance(material, dict) else None
    hint = public_key.get("hint") if isinstance(public_key, dict) else None
    return _bundle(payload, signature, _short(keyid), _short(hint))


def _bundle(payload: bytes, signature: bytes, keyid: str, hint: str) -> bytes:
    bundle = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode()


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_HINT else ""


def open_bundle(data: bytes, keys: Collection[PublicKey]) -> Signed:
    """Verify a bundle against the accepted keys.

    Raises MalformedStatement or SignatureInvalid. Every key is tried: a wrong keyid neither helps nor hurts.
    """
    payload, signature = _envelope(data)
    message = pae(PAYLOAD_TYPE, payload)
    for key in keys:
        try:
            key.verify(signature, message)
        except SignatureInvalid:
            continue
        return Signed(_statement(payload), sha256_digest(payload), key)
    known = ", ".join(sorted(k.thumbprint for k in keys)) or "none"
    raise SignatureInvalid(f"the statement is not signed by an accepted key (accepted: {known})")


def unverified(data: bytes) -> Unverified:
    """Read a bundle without verifying it."""
    payload, _ = _envelope(data)
    return Unverified(_statement(payload), sha256_digest(payload))


def _envelope(data: bytes) -> tuple[bytes, bytes]:
    bundle = _json(data)
    if bundle.get("mediaType") != BUNDLE_TYPE:
        raise MalformedStatement(f"mediaType is {str(bundle.get('mediaType'))[:80]!r}, expected {BUNDLE_TYPE!r}")
    envelope = bundle.get("dsseEnvelope")
    if not isinstance(envelope, dict):
        raise MalformedStatement("dsseEnvelope is missing")
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        raise MalformedStatement(f"payloadType is not {PAYLOAD_TYPE!r}")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise MalformedStatement("signatures must hold exactly one signature")
    return _base64(envelope.get("payload"), "payload"), _base64(signatures[0].get("sig"), "sig")


def _statement(payload: bytes) -> dict[str, Any]:
    statement = _json(payload)
    if statement.get("_type") != STATEMENT_TYPE:
        raise MalformedStatement(f"_type is not {STATEMENT_TYPE!r}")
    subjects = statement.get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise MalformedStatement("subject is missing")
    if not isinstance(statement.get("predicateType"), str) or not isinstance(statement.get("predicate"), dict):
        raise MalformedStatement("predicateType or predicate is missing")
    try:
        repeated = canonical(statement)
    except NotCanonicalizable as error:
        raise MalformedStatement(str(error)) from error
    if repeated != payload:
        raise MalformedStatement("the payload is not canonical JSON (RFC 8785)")
    return statement


def _base64(value: Any, what: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedStatement(f"{what} is missing")
    try:
        # DSSE allows both alphabets on input; Python would silently drop foreign characters without validate.
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedStatement(f"{what} is not base64: {error}") from error


def _json(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BUNDLE:
        raise MalformedStatement(f"{len(data)} bytes; at most {MAX_BUNDLE} are accepted")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedStatement(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MalformedStatement("not a JSON object")
    _bounded(document, MAX_DEPTH)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("an object has a key twice")
    return out


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _bounded(value: Any, depth: int) -> None:
    if depth == 0:
        raise MalformedStatement(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for inner in value.values():
            _bounded(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _bounded(inner, depth - 1)
