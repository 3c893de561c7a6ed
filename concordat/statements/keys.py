"""P-256 keys: the one algorithm that every verifier of the field takes in both directions."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import tempfile
from functools import cached_property, lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from concordat.statements.errors import SignatureInvalid, StatementError

_RAW_SIGNATURE = 64


class PublicKey:
    """A P-256 public key. Equal and hashed by its SubjectPublicKeyInfo, so one key never counts twice."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise StatementError(f"the key is on the curve {key.curve.name}; only P-256 is accepted")
        self._key = key
        self.spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def from_pem(cls, pem: str | bytes) -> PublicKey:
        """Read a PEM SubjectPublicKeyInfo; raises StatementError for anything but a P-256 key."""
        return _read(pem.encode() if isinstance(pem, str) else pem)

    def to_pem(self) -> str:
        """PEM SubjectPublicKeyInfo."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    @cached_property
    def thumbprint(self) -> str:
        """`SHA256:` and the unpadded base64 of the OpenSSH fingerprint: the keyid that other verifiers compute."""
        blob = self._key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        wire = base64.b64decode(blob.split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature, DER or raw r‖s; raises SignatureInvalid."""
        candidates = [signature]
        if len(signature) == _RAW_SIGNATURE:
            half = _RAW_SIGNATURE // 2
            r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            candidates.append(encode_dss_signature(r, s))
        for candidate in candidates:
            try:
                self._key.verify(candidate, message, ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                continue
            return
        raise SignatureInvalid(f"the signature is not by the key {self.thumbprint}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.spki == other.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    def __repr__(self) -> str:
        return f"PublicKey({self.thumbprint})"


class SigningKey:
    """A P-256 private key. Signatures are deterministic (RFC 6979), so a repeated step yields the same bytes."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> SigningKey:
        """Return a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        """Read an unencrypted PEM private key; raises StatementError for anything but P-256."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except Exception as error:
            raise StatementError(f"not an unencrypted PEM private key: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StatementError("the private key is not an elliptic-curve key; only P-256 is accepted")
        return cls(key)

    def to_pem(self) -> bytes:
        """PKCS#8 PEM, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Return a DER signature."""
        return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


@lru_cache(maxsize=2048)
def _read(pem: bytes) -> PublicKey:
    """Return the key. A hub reads its sites' keys again with every statement and heartbeat."""
    try:
        key = serialization.load_pem_public_key(pem)
    except Exception as error:
        raise StatementError(f"not a PEM public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise StatementError("the public key is not an elliptic-curve key; only P-256 is accepted")
    return PublicKey(key)


def write_once_key(path: Path) -> SigningKey:
    """Return the key in the file, made there with mode 0600 if there is none.

    Two processes that start at once agree on one key: the file appears whole, by a link that fails if it exists.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(SigningKey.generate().to_pem())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o600)
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    return SigningKey.from_pem(path.read_bytes())
