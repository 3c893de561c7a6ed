"""The cluster's own certificate authority, its certificates and kubeconfigs."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
BACKDATE = timedelta(minutes=5)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Identity:
    """Who a client certificate speaks for: a Kubernetes user and its groups."""

    user: str
    groups: tuple[str, ...] = ()


ADMIN = Identity("concordat-admin", ("system:masters",))
CONTROLLER_MANAGER = Identity("system:kube-controller-manager")
SCHEDULER = Identity("system:kube-scheduler")
KUBE_PROXY = Identity("system:kube-proxy")
API_SERVER_TO_KUBELET = Identity("kube-apiserver-kubelet-client", ("concordat:kubelet-clients",))
COREDNS = Identity("concordat:coredns")
STORAGE = Identity("concordat:storage")


def kubelet(node: str) -> Identity:
    """Return the identity that the Node authorizer knows as `node`."""
    return Identity(f"system:node:{node}", ("system:nodes",))


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, PEM."""

    key: bytes
    certificate: bytes

    def write(self, folder: Path, name: str) -> None:
        """Write <name>.crt and <name>.key, the key readable by its owner only."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.crt").write_bytes(self.certificate)
        write_private(folder / f"{name}.key", self.key)


class Authority:
    """A certificate authority with a P-256 key."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the authority's key is not an elliptic curve key")
        self._key = key

    @classmethod
    def create(cls, name: str, now: datetime) -> Authority:
        """Return a new authority, valid for ten years from `now`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(Pair(private_pem(key), certificate.public_bytes(serialization.Encoding.PEM)))

    @classmethod
    def load_or_create(cls, folder: Path, name: str, now: datetime) -> Authority:
        """Return the authority kept in `folder` as ca.crt and ca.key; made when there is none."""
        if not (folder / "ca.key").is_file():
            cls.create(name, now).pair.write(folder, "ca")
        return cls(Pair((folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes()))

    def client(self, identity: Identity, now: datetime) -> Pair:
        """Return a client certificate for an identity, valid for a year."""
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in identity.groups]
        subject = x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, identity.user)])
        return self._issue(subject, ExtendedKeyUsageOID.CLIENT_AUTH, [], now)

    def server(self, names: Sequence[str], now: datetime) -> Pair:
        """Return a serving certificate for DNS names and IP addresses, valid for a year."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, [_alternative(name) for name in names], now)

    def _issue(
        self, subject: x509.Name, usage: x509.ObjectIdentifier, names: list[x509.GeneralName], now: datetime
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(authority_key, critical=False)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def kubeconfig(server: str, authority: bytes, client: Pair) -> str:
    """Return a kubeconfig with everything in it. server: URL; authority: PEM of the CA."""

    def embed(data: bytes) -> str:
        return base64.b64encode(data).decode()

    user = {"client-certificate-data": embed(client.certificate), "client-key-data": embed(client.key)}
    cluster = {"server": server, "certificate-authority-data": embed(authority)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "concordat", "cluster": cluster}],
        "users": [{"name": "concordat", "user": user}],
        "contexts": [{"name": "concordat", "context": {"cluster": "concordat", "user": "concordat"}}],
        "current-context": "concordat",
    }
    return yaml.safe_dump(document, sort_keys=False)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whatever was there before."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_service_account_key(path: Path) -> None:
    """Create the key that signs service account tokens, unless it is there: tokens outlive restarts."""
    if not path.is_file():
        # kube-apiserver derives the public key from this file, which it does for SEC 1 keys and not for PKCS#8.
        sec1 = serialization.PrivateFormat.TraditionalOpenSSL
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(serialization.Encoding.PEM, sec1, serialization.NoEncryption())
        write_private(path, pem)


def _alternative(name: str) -> x509.GeneralName:
    try:
        address: IpAddress = ipaddress.ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(address)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
