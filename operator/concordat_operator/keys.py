"""The hub's two keys, made once and kept in a Secret of its namespace; its gateway's, which that keeps; and what sites
are told of them."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from concordat.api import Reason
from concordat.controller import CONFIGMAP, SECRET, AlreadyExists, Cluster, NotFound, fields
from concordat.errors import Terminal
from concordat.lineage import Trust
from concordat.protocol.locations import (
    GATEWAY_CA_FILE,
    GATEWAY_CONFIGMAP,
    GATEWAY_KEYS_FILE,
    TRUST_CONFIGMAP,
    TRUST_FILE,
)
from concordat.statements import PublicKey, SigningKey, StatementError

log = logging.getLogger(__name__)
Sleep = Callable[[float], Awaitable[None]]

_LOOK_SECONDS = 0.5
SECRET_NAME = "concordat-keys"  # noqa: S105 - a name
_CONTRACT, _AGGREGATION = "contract.pem", "aggregation.pem"


@dataclass(frozen=True)
class Keys:
    """The hub's signing keys."""

    contract: SigningKey
    """Signs contracts and releases: what the hub asks and offers."""
    aggregation: SigningKey
    """Signs verdicts, closures and aggregations: what the hub ascertained."""
    more_contract: tuple[PublicKey, ...] = ()
    more_aggregation: tuple[PublicKey, ...] = ()
    """Keys that sites are told to trust as well: those that come next, and those that were before."""
    gateway: tuple[PublicKey, ...] = ()
    """Keys of the hub's gateway, whose private halves are not here: they sign the grants."""
    gateway_ca: str | None = None
    """PEM certificates by which the gateway is known; None: those that every system trusts."""

    def all(self) -> frozenset[PublicKey]:
        """Return the public keys: no member may have one of them."""
        return frozenset((*self._contracts(), *self._aggregations(), *self.gateway))

    def _contracts(self) -> tuple[PublicKey, ...]:
        return (self.contract.public, *self.more_contract)

    def _aggregations(self) -> tuple[PublicKey, ...]:
        return (self.aggregation.public, *self.more_aggregation)

    def trust(self, evaluators: Mapping[str, tuple[PublicKey, ...]]) -> Trust:
        """Return the keys by which the hub's statements, and those of its evaluators, are verified."""
        return Trust(
            contract_keys=self._contracts(),
            aggregation_keys=self._aggregations(),
            gateway_keys=self.gateway,
            evaluators=dict(evaluators),
            gateway_ca=self.gateway_ca,
        )


async def load_or_create(cluster: Cluster, namespace: str) -> Keys:
    """Return the keys in the Secret; made when there is none. Replicas that start at once agree on one pair.

    Raises StatementError if keys were published, which sites may have pinned, and their Secret is gone.
    """
    stored = await _stored(cluster, namespace)
    if stored is None:
        published = await _published(cluster, namespace)
        stored = await _stored(cluster, namespace)
        if stored is None and published:
            raise StatementError(
                f"Secret {namespace}/{SECRET_NAME} is gone, but ConfigMap {TRUST_CONFIGMAP} still publishes its keys: "
                "restore the Secret from a backup. To begin anew with other keys, which every site must pin again, "
                "delete the ConfigMap."
            )
    if stored is None:
        with suppress(AlreadyExists):
            return _keys(await cluster.create(_secret(namespace, Keys(SigningKey.generate(), SigningKey.generate()))))
        stored = await cluster.get(SECRET, namespace, SECRET_NAME)
    return _keys(stored)


async def keep(cluster: Cluster, namespace: str, keys: Keys) -> None:
    """See before something is signed that the keys are stored; a Secret that was deleted is made again from memory.

    Raises Terminal if another pair is stored: what this process signs nobody could verify after its next start.
    """
    stored = await _stored(cluster, namespace)
    held = _keys(stored if stored is not None else await cluster.create(_secret(namespace, keys)))
    if (held.contract.public, held.aggregation.public) != (keys.contract.public, keys.aggregation.public):
        raise Terminal(
            Reason.INVALID,
            f"Secret {namespace}/{SECRET_NAME} holds other keys than this operator runs with: put the old ones back, "
            "or restart the operator and have every site pin the new ones.",
        )


async def _stored(cluster: Cluster, namespace: str) -> dict[str, Any] | None:
    with suppress(NotFound):
        return await cluster.get(SECRET, namespace, SECRET_NAME)
    return None


async def _published(cluster: Cluster, namespace: str) -> bool:
    with suppress(NotFound):
        return bool(await cluster.get(CONFIGMAP, namespace, TRUST_CONFIGMAP))
    return False


async def with_gateway(keys: Keys, cluster: Cluster, namespace: str, sleep: Sleep = asyncio.sleep) -> Keys:
    """Return the keys with what the hub's gateway published, once it has. Raises StatementError if that is none."""
    waited = False
    while True:
        try:
            published = await cluster.get(CONFIGMAP, namespace, GATEWAY_CONFIGMAP)
        except NotFound:
            if not waited:
                log.info("waiting for the gateway", extra=fields(configmap=GATEWAY_CONFIGMAP))
            waited = True
            await sleep(_LOOK_SECONDS)
            continue
        try:
            found = tuple(PublicKey.from_pem(pem) for pem in json.loads(published["data"][GATEWAY_KEYS_FILE]))
        except (KeyError, TypeError, ValueError, AttributeError, StatementError) as error:
            raise StatementError(
                f"ConfigMap {namespace}/{GATEWAY_CONFIGMAP} names no keys: {error}; restart the gateway"
            ) from None
        return replace(keys, gateway=found, gateway_ca=published["data"].get(GATEWAY_CA_FILE))


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


def _keys(secret: Mapping[str, Any]) -> Keys:
    data = secret.get("data") or {}
    return Keys(_key(data, _CONTRACT), _key(data, _AGGREGATION), _more(data, "contract-"), _more(data, "aggregation-"))


def _more(data: Mapping[str, str], prefix: str) -> tuple[PublicKey, ...]:
    """Return the public keys of further entries, as `contract-next.pem`, in the order of their names."""
    names = sorted(name for name in data if name.startswith(prefix) and name.endswith(".pem"))
    return tuple(_key(data, name).public for name in names)


def _key(data: Mapping[str, str], name: str) -> SigningKey:
    return SigningKey.from_pem(base64.b64decode(data.get(name, "")))


def _secret(namespace: str, keys: Keys) -> dict[str, Any]:
    pems = {_CONTRACT: keys.contract.to_pem(), _AGGREGATION: keys.aggregation.to_pem()}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": SECRET_NAME, "namespace": namespace},
        "data": {name: base64.b64encode(pem).decode() for name, pem in pems.items()},
    }
