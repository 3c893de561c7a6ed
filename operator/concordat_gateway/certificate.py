"""The gateway's own certificate, where nobody brings one: an authority for it alone, whose key is thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

_LASTS = timedelta(days=3650)
FILES = ("ca.crt", "tls.crt", "tls.key")


def make(namespace: str, now: datetime) -> dict[str, bytes]:
    """Return ca.crt, tls.crt and tls.key (PEM, P-256) for the gateway of the hub in that namespace, for ten years."""
    host = f"concordat-gateway.{namespace}.svc"
    above, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = (
        _unsigned("concordat-gateway authority", "concordat-gateway authority", above.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(above, hashes.SHA256())
    )
    made = (
        _unsigned(host, "concordat-gateway authority", key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName(f"{host}.cluster.local")]), critical=False
        )
        .sign(above, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return dict(zip(FILES, (ca.public_bytes(pem), made.public_bytes(pem), private), strict=True))


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a certificate where `served` reads it."""
    for name in FILES:
        (folder / name).write_bytes(files[name])


def authority(folder: Path) -> str | None:
    """Return the certificates by which the one in the folder is known; None: those that every system trusts."""
    file = folder / "ca.crt"
    return file.read_text() if file.exists() and file.stat().st_size else None


def _unsigned(name: str, issuer: str, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A client whose clock is behind must not refuse what was made a moment ago.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LASTS)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    kinds = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{kind: allowed.get(kind, False) for kind in kinds})


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
