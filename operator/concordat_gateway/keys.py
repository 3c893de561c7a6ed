"""The gateway's own keys: made once, kept in a Secret that nobody else reads, what others need of them published."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from concordat.controller import CONFIGMAP, SECRET, AlreadyExists, Cluster, NotFound
from concordat.protocol.locations import GATEWAY_CA_FILE, GATEWAY_CONFIGMAP, GATEWAY_KEYS_FILE
from concordat.statements import PublicKey, SigningKey, StatementError
from concordat_gateway.certificate import FILES, make

SECRET_NAME = "concordat-gateway-key"  # noqa: S105 - a name
_PEM = "grant.pem"
_MANAGER = "concordat-gateway"


@dataclass(frozen=True)
class Keys:
    """The key that signs grants, the public keys to publish, its own first, and the gateway's own certificate."""

    signing: SigningKey
    public: tuple[PublicKey, ...]
    certificate: Mapping[str, bytes]
    """ca.crt, tls.crt and tls.key."""


async def load_or_create(cluster: Cluster, namespace: str, now: datetime) -> Keys:
    """Return what is in the Secret, made when there is none.

    Raises StatementError if keys were published, which sites may have pinned, and their Secret is gone; ApiError.
    """
    try:
        return _keys(await cluster.get(SECRET, namespace, SECRET_NAME))
    except NotFound:
        if await _published(cluster, namespace):
            raise StatementError(
                f"Secret {namespace}/{SECRET_NAME} is gone, but ConfigMap {GATEWAY_CONFIGMAP} publishes its keys: "
                "restore the Secret from a backup. To begin anew with others, which every site must pin again, "
                "delete the ConfigMap."
            ) from None
    data = {_PEM: SigningKey.generate().to_pem(), **make(namespace, now)}
    secret = {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "data": {name: base64.b64encode(content).decode() for name, content in data.items()},
    }
    with suppress(AlreadyExists):
        return _keys(await cluster.create(secret))
    return _keys(await cluster.get(SECRET, namespace, SECRET_NAME))


async def publish(cluster: Cluster, namespace: str, keys: Keys, ca: str | None) -> None:
    """Publish the public keys, and the authority of the certificate in use, for the operator to pass on."""
    data = {GATEWAY_KEYS_FILE: json.dumps([key.to_pem() for key in keys.public], indent=2)}
    data |= {GATEWAY_CA_FILE: ca} if ca is not None else {}
    metadata = {"name": GATEWAY_CONFIGMAP, "namespace": namespace}
    published = {"apiVersion": CONFIGMAP.api_version, "kind": CONFIGMAP.kind, "metadata": metadata, "data": data}
    await cluster.apply(published, _MANAGER)


async def _published(cluster: Cluster, namespace: str) -> bool:
    with suppress(NotFound):
        return bool(await cluster.get(CONFIGMAP, namespace, GATEWAY_CONFIGMAP))
    return False


def _keys(secret: Mapping[str, Any]) -> Keys:
    data = {name: base64.b64decode(content) for name, content in (secret.get("data") or {}).items()}
    more = sorted(name for name in data if name.startswith("grant-") and name.endswith(".pem"))
    signing, *others = (SigningKey.from_pem(data.get(name, b"")) for name in (_PEM, *more))
    if missing := [name for name in FILES if name not in data]:
        raise StatementError(f"Secret {SECRET_NAME} has no {missing[0]}: restore it from a backup")
    return Keys(signing, tuple(key.public for key in (signing, *others)), {name: data[name] for name in FILES})
