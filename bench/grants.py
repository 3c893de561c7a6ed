"""A round for the gateway to give grants in, and how long they take; part of `python -m bench.gateway`.

The limit beside it is what cannot be left out: the site's signature, its verification, and the gateway's signature.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from concordat.api import FederationRound
from concordat.api.types import API_VERSION
from concordat.artifacts import Access, RegistryStore
from concordat.controller import CONFIGMAP, POD, Cluster
from concordat.lineage import Trust
from concordat.protocol import artifact_types as types
from concordat.protocol.canonical import canonical, sha256_digest
from concordat.protocol.contract import Contract
from concordat.protocol.locations import GATEWAY_AUDIENCE, TRUST_CONFIGMAP, TRUST_FILE, round_repository
from concordat.statements import SigningKey, sign
from concordat.statements.contract import contract_statement
from concordat.statements.grant import Purpose, Shown, open_shown
from concordat_agent.gateway import HttpGateway
from tests.support.contracts import contract
from tests.support.grants import grant

GRANTS, AGENTS = 100, 8
_IMAGE = "registry.invalid/agent@sha256:" + "2" * 64
_DIGEST = "sha256:" + "9" * 64


@dataclass(frozen=True)
class Asking:
    """One site of an open round."""

    site: str
    key: SigningKey
    contract: Contract
    digest: str
    token: str

    def shown(self, nonce: str) -> bytes:
        """Return the evidence over a nonce, signed."""
        made = Shown(
            contract=self.digest,
            site=self.site,
            purpose=Purpose.TRAIN,
            nonce=nonce,
            policy=_DIGEST,
            base=self.contract.base.digest,
            job_uid="job",
        )
        return sign(made.statement(), self.key)


async def open_round(admin: Cluster, registry_url: str, hub: str, site: str, key: SigningKey) -> Asking:
    """Make a contracted round of one site, with the pod of its agent, and a token of that pod."""
    signer, now = SigningKey.generate(), datetime.now(UTC).replace(microsecond=0)
    spec = {"federation": "digits", "parent": {"channelRef": {"name": "stable"}}, "quorum": 1}
    made = await admin.create(
        {
            "apiVersion": API_VERSION,
            "kind": "FederationRound",
            "metadata": {"name": "r1", "namespace": hub},
            "spec": {**spec, "aggregation": {"rule": "Mean", "preAggregation": "None", "maxFaultySites": 0}},
        }
    )
    uid = made["metadata"]["uid"]
    agreed = contract(
        round={"name": "r1", "namespace": hub, "uid": uid, "generation": 1},
        sites=[{"name": site, "keyThumbprint": key.public.thumbprint, "publicKey": key.public.to_pem()}],
        opens=now,
        submissionDeadline=now + timedelta(hours=4),
    )
    document = canonical(agreed.wire())
    digest = sha256_digest(document)
    files = {Contract.FILE: document, Contract.STATEMENT_FILE: sign(contract_statement(agreed.wire(), digest), signer)}
    async with RegistryStore(registry_url) as store:
        ref = await store.push(round_repository("digits", uid), types.CONTRACT, files)
    status = {"contract": {"artifact": ref.wire(), "sha256": digest, "contractedTime": now.isoformat()}}
    await admin.apply_status(FederationRound, hub, "r1", status, "bench")
    others = [SigningKey.generate().public for _ in range(2)]
    trust = Trust((signer.public,), (others[0],), (others[1],), {})
    metadata = {"name": TRUST_CONFIGMAP, "namespace": hub}
    data = {TRUST_FILE: trust.to_json()}
    await admin.create({"apiVersion": "v1", "kind": CONFIGMAP.kind, "metadata": metadata, "data": data})
    return Asking(site, key, agreed, digest, await _token(admin, site))


async def _token(admin: Cluster, site: str) -> str:
    """Return the token of a pod of the site's agent, of which the API server has what a kubelet would report."""
    container = {"name": "agent", "image": _IMAGE}
    spec = {"serviceAccountName": "concordat-agent", "containers": [container], "automountServiceAccountToken": False}
    metadata = {"name": "agent", "namespace": site}
    pod = await admin.create({"apiVersion": "v1", "kind": POD.kind, "metadata": metadata, "spec": spec})
    ran = {"name": "agent", "image": _IMAGE, "imageID": _IMAGE, "ready": True, "restartCount": 0}
    status = {"status": {"containerStatuses": [ran]}}
    merge = "application/merge-patch+json"
    await admin._write("PATCH", POD.path(site, "agent", "status"), status, content_type=merge)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent", "uid": pod["metadata"]["uid"]}
    asked = {"audiences": [GATEWAY_AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": asked}
    path = f"/api/v1/namespaces/{site}/serviceaccounts/concordat-agent/token"
    return str((await admin._request("POST", path, body=body))["status"]["token"])


async def through(url: str, access: Access, asking: Asking) -> Mapping[str, float]:
    """Return what GRANTS challenges with their grants take, one after another and by AGENTS at once."""
    waits: list[float] = []
    async with HttpGateway(url, access) as gateway:

        async def one() -> None:
            begun = time.perf_counter()
            await gateway.grant(asking.shown(await gateway.challenge(asking.digest)))
            waits.append(1000 * (time.perf_counter() - begun))

        await one()
        waits.clear()
        for _ in range(GRANTS):
            await one()
        alone = median(waits)
        begun = time.perf_counter()

        async def several() -> None:
            for _ in range(GRANTS // AGENTS):
                await one()

        await asyncio.gather(*(several() for _ in range(AGENTS)))
        rate = GRANTS // AGENTS * AGENTS / (time.perf_counter() - begun)
    return {"challenge and grant, ms": alone, "grants per second": rate}


def signatures(asking: Asking) -> Mapping[str, float]:
    """Return what the signatures of as many grants take by themselves."""
    waits, gateway = [], SigningKey.generate()
    statement: dict[str, Any] = grant(
        asking.site, asking.contract, asking.digest, _DIGEST, datetime.now(UTC)
    ).statement()
    for number in range(GRANTS):
        begun = time.perf_counter()
        open_shown(asking.shown(str(number)), asking.key.public)
        sign(statement, gateway)
        waits.append(1000 * (time.perf_counter() - begun))
    return {"challenge and grant, ms": median(waits), "grants per second": 1000 / (sum(waits) / len(waits))}
