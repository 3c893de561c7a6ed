"""The gateway's signing key: made once, kept in a Secret that nobody else reads, its public half published."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from concordat.controller import CONFIGMAP, SECRET, AlreadyExists, Cluster, NotFound
from concordat.protocol.locations import GATEWAY_CONFIGMAP, GATEWAY_KEYS_FILE
from concordat.statements import PublicKey, SigningKey, StatementError

SECRET_NAME = "concordat-gateway-key"  # noqa: S105 - a name
_PEM = "grant.pem"
_MANAGER = "concordat-gateway"


@dataclass(frozen=True)
class Keys:
    """The key that signs grants, and the public keys to publish: its own first, then those of further entries."""

    signing: SigningKey
    public: tuple[PublicKey, ...]


async def load_or_create(cluster: Cluster, namespace: str) -> Keys:
    """Return the keys in the Secret, made when there is none, and publish their public halves.

    Raises StatementError if a key was published, which sites may have pinned, and its Secret is gone; ApiError.
    """
    try:
        secret = await cluster.get(SECRET, namespace, SECRET_NAME)
    except NotFound:
        if await _published(cluster, namespace):
            raise StatementError(
                f"Secret {namespace}/{SECRET_NAME} is gone, but ConfigMap {GATEWAY_CONFIGMAP} still publishes its key: "
                "restore the Secret from a backup. To begin anew with another key, which every site must pin again, "
                "delete the ConfigMap."
            ) from None
        secret = await _make(cluster, namespace)
    keys = _keys(secret)
    data = {GATEWAY_KEYS_FILE: json.dumps([key.to_pem() for key in keys.public], indent=2)}
    metadata = {"name": GATEWAY_CONFIGMAP, "namespace": namespace}
    published = {"apiVersion": CONFIGMAP.api_version, "kind": CONFIGMAP.kind, "metadata": metadata, "data": data}
    await cluster.apply(published, _MANAGER)
    return keys


async def _make(cluster: Cluster, namespace: str) -> dict[str, Any]:
    pem = base64.b64encode(SigningKey.generate().to_pem()).decode()
    metadata = {"name": SECRET_NAME, "namespace": namespace}
    secret = {"apiVersion": SECRET.api_version, "kind": SECRET.kind, "metadata": metadata, "data": {_PEM: pem}}
    with suppress(AlreadyExists):
        return await cluster.create(secret)
    return await cluster.get(SECRET, namespace, SECRET_NAME)


async def _published(cluster: Cluster, namespace: str) -> bool:
    with suppress(NotFound):
        return bool(await cluster.get(CONFIGMAP, namespace, GATEWAY_CONFIGMAP))
    return False


def _keys(secret: Mapping[str, Any]) -> Keys:
    data = secret.get("data") or {}
    more = sorted(name for name in data if name.startswith("grant-") and name.endswith(".pem"))
    signing, *others = (SigningKey.from_pem(base64.b64decode(data.get(name, ""))) for name in (_PEM, *more))
    return Keys(signing, tuple(key.public for key in (signing, *others)))
