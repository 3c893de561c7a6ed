"""Envelope, signature and bundle: published vectors, and whatever bytes somebody sends."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from concordat.protocol.canonical import NotCanonicalizable, canonical, sha256_digest
from concordat.statements import (
    MalformedStatement,
    SignatureInvalid,
    SigningKey,
    StatementError,
    one_line,
    open_bundle,
    sign,
    unverified,
)
from concordat.statements.dsse import MAX_BUNDLE, PAYLOAD_TYPE, pae

KEY = SigningKey.generate()
STATEMENT: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "contract.json", "digest": {"sha256": "a" * 64}}],
    "predicateType": "https://concordat.dev/round-contract/v1",
    "predicate": {"number": 1, "text": "größer"},
}

# The key and the signature of the example in the DSSE specification, protocol.md.
SPEC_KEY = SigningKey(
    ec.EllipticCurvePrivateNumbers(
        97358161215184420915383655311931858321456579547487070936769975997791359926199,
        ec.EllipticCurvePublicNumbers(
            46950820868899156662930047687818585632848591499744589407958293238635476079160,
            5640078356564379163099075877009565129882514886557779369047442380624545832820,
            ec.SECP256R1(),
        ),
    ).private_key()
)
SPEC_SIGNATURE = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="


def _bundle(payload: bytes, /, **envelope: Any) -> bytes:
    """A bundle around any payload, validly signed."""
    bundle = json.loads(sign(STATEMENT, KEY))
    signature = KEY.sign(pae(PAYLOAD_TYPE, payload))
    bundle["dsseEnvelope"] |= {
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": KEY.public.thumbprint, "sig": base64.b64encode(signature).decode()}],
        **envelope,
    }
    return json.dumps(bundle).encode()


def test_the_specifications_example() -> None:
    message = pae("http://example.com/HelloWorld", b"hello world")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    SPEC_KEY.public.verify(base64.b64decode(SPEC_SIGNATURE), message)
    # RFC 6979: our own signature over the same message is the published one.
    r, s = decode_dss_signature(SPEC_KEY.sign(message))
    assert base64.b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).decode() == SPEC_SIGNATURE


@pytest.mark.parametrize(
    ("kind", "body", "encoded"),
    [
        ("", b"", b"DSSEv1 0  0 "),
        ("a", b"1 2", b"DSSEv1 1 a 3 1 2"),
        ("größe", b"\xff", b"DSSEv1 7 gr\xc3\xb6\xc3\x9fe 1 \xff"),
    ],
)
def test_lengths_are_counted_in_bytes(kind: str, body: bytes, encoded: bytes) -> None:
    assert pae(kind, body) == encoded


@given(st.text(), st.binary(), st.text(), st.binary())
def test_no_two_messages_are_encoded_alike(kind: str, body: bytes, other_kind: str, other_body: bytes) -> None:
    assert (pae(kind, body) == pae(other_kind, other_body)) is ((kind, body) == (other_kind, other_body))


def test_a_statement_round_trips_under_its_id() -> None:
    data = sign(STATEMENT, KEY)
    assert b"\n" not in data
    assert data == sign(STATEMENT, KEY)
    signed = open_bundle(data, [SigningKey.generate().public, KEY.public])
    assert signed.statement == STATEMENT
    assert signed.id == sha256_digest(canonical(STATEMENT))
    assert signed.key == KEY.public
    assert unverified(data).id == signed.id


def test_the_bundle_has_the_shape_other_verifiers_read() -> None:
    bundle = json.loads(sign(STATEMENT, KEY))
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    hint = base64.b64encode(hashlib.sha256(KEY.public.spki).digest()).decode()
    assert bundle["verificationMaterial"] == {"publicKey": {"hint": hint}, "tlogEntries": []}
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    assert signature["keyid"] == KEY.public.thumbprint
    assert bundle["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"


def test_the_keyid_decides_nothing() -> None:
    other = SigningKey.generate()
    bundle = json.loads(sign(STATEMENT, KEY))
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = other.public.thumbprint
    data = json.dumps(bundle).encode()
    assert open_bundle(data, [other.public, KEY.public]).key == KEY.public
    with pytest.raises(SignatureInvalid, match=r"accepted: SHA256:"):
        open_bundle(data, [other.public])
    with pytest.raises(SignatureInvalid, match="accepted: none"):
        open_bundle(data, [])


def test_both_encodings_of_a_signature_and_both_alphabets_are_read() -> None:
    payload = canonical(STATEMENT)
    r, s = decode_dss_signature(KEY.sign(pae(PAYLOAD_TYPE, payload)))
    raw = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).decode()
    data = _bundle(payload, payload=base64.urlsafe_b64encode(payload).decode(), signatures=[{"sig": raw}])
    assert open_bundle(data, [KEY.public]).id == sha256_digest(payload)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_of_the_payload_is_noticed(position: int, change: int) -> None:
    payload = bytearray(canonical(STATEMENT))
    payload[position % len(payload)] ^= change
    bundle = json.loads(sign(STATEMENT, KEY))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureInvalid):
        open_bundle(json.dumps(bundle).encode(), [KEY.public])


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_any_changed_byte_of_the_signature_is_noticed(position: int, change: int) -> None:
    bundle = json.loads(sign(STATEMENT, KEY))
    (entry,) = bundle["dsseEnvelope"]["signatures"]
    signature = bytearray(base64.b64decode(entry["sig"]))
    signature[position % len(signature)] ^= change
    entry["sig"] = base64.b64encode(signature).decode()
    with pytest.raises(SignatureInvalid):
        open_bundle(json.dumps(bundle).encode(), [KEY.public])


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        ({"payloadType": "application/json"}, "payloadType"),
        ({"payload": None}, "payload is missing"),
        ({"payload": "e30\n"}, "not base64"),
        ({"payload": "e30"}, "not base64"),
        ({"signatures": []}, "exactly one"),
        ({"signatures": [{"sig": "AA=="}, {"sig": "AA=="}]}, "exactly one"),
        ({"signatures": ["AA=="]}, "exactly one"),
        ({"signatures": [{"keyid": "x"}]}, "sig is missing"),
    ],
)
def test_an_envelope_of_another_form_is_refused(envelope: dict[str, Any], says: str) -> None:
    with pytest.raises(MalformedStatement, match=says):
        open_bundle(_bundle(canonical(STATEMENT), **envelope), [KEY.public])


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":1,"a":1}', "key twice"),
        (b"[" * 3000, "not JSON"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (canonical({**STATEMENT, "_type": "https://in-toto.io/Statement/v0.1"}), "_type"),
        (canonical({**STATEMENT, "subject": []}), "subject is missing"),
        (canonical({**STATEMENT, "predicate": []}), "predicate is missing"),
        (canonical({**STATEMENT, "predicateType": 1}), "predicateType or predicate"),
        (json.dumps(STATEMENT).encode(), "not canonical"),
        (canonical(STATEMENT).replace(b'"number":1', b'"number":1.5'), "is a float"),
        (canonical(STATEMENT).replace(b'"number":1', b'"number":1e0'), "is a float"),
        (canonical(STATEMENT).replace(b'"number":1', b'"number":9007199254740993'), "not canonicalizable"),
        (canonical(STATEMENT).replace(b'"number"', b'"\\ud800"'), "not canonicalizable"),
        (canonical(STATEMENT).replace(b'"number":1', b'"number":"\\ud800"'), "not canonicalizable"),
    ],
)
def test_a_payload_of_another_form_is_refused_however_well_signed(payload: bytes, says: str) -> None:
    with pytest.raises(MalformedStatement, match=says):
        open_bundle(_bundle(payload), [KEY.public])
    with pytest.raises(MalformedStatement, match=says):
        unverified(_bundle(payload))


def test_a_lone_surrogate_in_a_key_is_told_and_does_not_escape_as_a_unicode_error() -> None:
    with pytest.raises(NotCanonicalizable, match="not canonicalizable"):
        canonical({"\ud800": 1})


def test_the_size_is_bounded_before_anything_is_parsed() -> None:
    with pytest.raises(MalformedStatement, match="at most 1048576 are accepted"):
        unverified(b" " * (MAX_BUNDLE + 1))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.binary() | _JSON.map(lambda document: json.dumps(document).encode()))
def test_any_bytes_are_refused_with_a_statement_error(data: bytes) -> None:
    for read in (unverified, one_line, lambda d: open_bundle(d, [KEY.public])):
        with pytest.raises(StatementError):
            read(data)


@given(_JSON)
def test_any_signed_payload_is_read_or_refused_with_a_statement_error(document: Any) -> None:
    payload = json.dumps({**STATEMENT, "predicate": document}, sort_keys=True, separators=(",", ":")).encode()
    try:
        signed = open_bundle(_bundle(payload), [KEY.public])
    except StatementError:
        return
    assert canonical(signed.statement) == payload


def test_one_line_keeps_the_statement_and_drops_what_nobody_verifies() -> None:
    plain = sign(STATEMENT, KEY)
    bundle = json.loads(plain)
    bundle["padding"] = "x" * 1000
    bundle["verificationMaterial"]["more"] = "x" * 1000
    bundle["dsseEnvelope"]["signatures"][0]["more"] = "x" * 1000
    assert one_line(json.dumps(bundle, indent=2).encode()) == plain
    assert one_line(plain) == plain
    bundle["dsseEnvelope"]["signatures"][0]["keyid"] = "x" * 1000
    bundle["verificationMaterial"] = []
    shortened = one_line(json.dumps(bundle).encode())
    assert len(shortened) < len(plain)
    assert open_bundle(shortened, [KEY.public]).statement == STATEMENT
