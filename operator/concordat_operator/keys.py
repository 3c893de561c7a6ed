"""The hub's two keys, made once and kept in a Secret of its namespace; and what sites are told of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from concordat.controller import CONFIGMAP, SECRET, AlreadyExists, Cluster, NotFound
from concordat.lineage import Trust
from concordat.protocol.locations import TRUST_CONFIGMAP, TRUST_FILE
from concordat.statements import PublicKey, SigningKey

SECRET_NAME = "concordat-keys"  # noqa: S105 - a name
_CONTRACT, _AGGREGATION = "contract.pem", "aggregation.pem"


@dataclass(frozen=True)
class Keys:
    """The hub's signing keys."""

    contract: SigningKey
    """Signs contracts and releases: what the hub asks and offers."""
    aggregation: SigningKey
    """Signs verdicts, closures and aggregations: what the hub ascertained."""

    def trust(self, evaluators: Mapping[str, PublicKey]) -> Trust:
        """Return the keys by which the hub's statements, and those of its evaluators, are verified."""
        return Trust(
            contract_keys=(self.contract.public,),
            aggregation_keys=(self.aggregation.public,),
            evaluators=dict(evaluators),
        )


async def load_or_create(cluster: Cluster, namespace: str) -> Keys:
    """Return the keys in the Secret; made when there is none. Replicas that start at once agree on one pair."""
    try:
        secret = await cluster.get(SECRET, namespace, SECRET_NAME)
    except NotFound:
        try:
            secret = await cluster.create(_secret(namespace))
        except AlreadyExists:
            secret = await cluster.get(SECRET, namespace, SECRET_NAME)
    data = secret.get("data") or {}
    return Keys(_key(data, _CONTRACT), _key(data, _AGGREGATION))


async def publish_first(cluster: Cluster, namespace: str, keys: Keys) -> None:
    """Publish the hub's own keys if nothing is published yet: an evaluator is installed with them."""
    with suppress(AlreadyExists):
        await cluster.create(trust_configmap(namespace, keys.trust({})))


def trust_configmap(namespace: str, trust: Trust) -> dict[str, Any]:
    """Return the ConfigMap from which sites take the keys to pin, after comparing them over a second channel."""
    return {
        "apiVersion": CONFIGMAP.api_version,
        "kind": CONFIGMAP.kind,
        "metadata": {"name": TRUST_CONFIGMAP, "namespace": namespace},
        "data": {TRUST_FILE: trust.to_json()},
    }


def _key(data: Mapping[str, str], name: str) -> SigningKey:
    return SigningKey.from_pem(base64.b64decode(data.get(name, "")))


def _secret(namespace: str) -> dict[str, Any]:
    pems = {name: SigningKey.generate().to_pem() for name in (_CONTRACT, _AGGREGATION)}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "data": {name: base64.b64encode(pem).decode() for name, pem in pems.items()},
    }
