"""Keys: one algorithm, one identity for one key, and a key file that is made once."""

from __future__ import annotations

import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from concordat.statements import PublicKey, SignatureInvalid, SigningKey, StatementError, write_once_key

_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
_SPKI = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_is_the_same_however_it_was_read() -> None:
    key = SigningKey.generate()
    again = PublicKey.from_pem(key.public.to_pem())
    assert again == key.public
    assert len({again, key.public, SigningKey.from_pem(key.to_pem()).public}) == 1
    assert again != SigningKey.generate().public
    assert again != "a key"
    assert key.public.thumbprint in repr(again)


def test_the_thumbprint_is_what_ssh_keygen_prints(tmp_path: Path) -> None:
    key = SigningKey.generate()
    public = serialization.load_pem_public_key(key.public.to_pem().encode())
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "key.pub").write_bytes(line)
    try:
        printed = subprocess.run(
            ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert key.public.thumbprint == printed.split()[1]


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["Ed25519", "RSA", "P-384"],
)
def test_only_p256_is_accepted(
    key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    with pytest.raises(StatementError, match="P-256"):
        SigningKey.from_pem(key.private_bytes(*_PKCS8, serialization.NoEncryption()))
    with pytest.raises(StatementError, match="P-256"):
        PublicKey.from_pem(key.public_key().public_bytes(*_SPKI))


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_told(pem: str) -> None:
    with pytest.raises(StatementError, match="not a PEM public key"):
        PublicKey.from_pem(pem)
    with pytest.raises(StatementError, match="not an unencrypted PEM private key"):
        SigningKey.from_pem(pem.encode())


def test_an_encrypted_key_is_not_read() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(*_PKCS8, serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(StatementError, match="not an unencrypted"):
        SigningKey.from_pem(pem)


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\xff" * 64, b"0" * 72])
def test_what_is_no_signature_is_invalid(signature: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        SigningKey.generate().public.verify(signature, b"message")


def test_the_key_file_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "site.key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: write_once_key(path), range(8)))
    assert len({key.public for key in keys}) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["site.key"]
