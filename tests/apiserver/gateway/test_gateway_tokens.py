"""Whose token it is, as a real API server says."""

from __future__ import annotations

import pytest

from concordat.controller import Cluster, SystemClock
from concordat.protocol.locations import GATEWAY_AUDIENCE
from concordat_devcluster.control_plane import ControlPlane
from concordat_gateway.callers import Callers
from concordat_gateway.rights import Caller


async def token(admin: Cluster, namespace: str, audience: str) -> str:
    """A token of the namespace's agent."""
    spec = {"audiences": [audience], "expirationSeconds": 600}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/concordat-agent/token"
    made = await admin._request("POST", path, body=body)
    return str(made["status"]["token"])


@pytest.mark.attack("a token for the API server, for another audience, forged", "gateway, TokenReview", "UNAUTHORIZED")
async def test_a_token_is_its_accounts_if_it_is_for_the_gateway(crds: ControlPlane) -> None:
    async with Cluster(crds.kubeconfig) as admin:
        for space in ("gateway-a", "gateway-b"):
            await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
            account = {"name": "concordat-agent", "namespace": space}
            await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        callers = Callers(admin, SystemClock())
        for space in ("gateway-a", "gateway-b"):
            mine = await token(admin, space, GATEWAY_AUDIENCE)
            assert await callers.of(f"Bearer {mine}") == Caller(space, "concordat-agent")
        default = await token(admin, "gateway-a", "https://kubernetes.default.svc.cluster.local")
        elsewhere = await token(admin, "gateway-a", "another-audience")
        head, _, signature = (await token(admin, "gateway-a", GATEWAY_AUDIENCE)).rpartition(".")
        forged = f"{head}.{signature[::-1]}"
        for other in (default, elsewhere, forged, "", "x"):
            assert await callers.of(f"Bearer {other}") is None


@pytest.mark.parametrize("authorization", [None, "", "Basic abc", "Bearer", "Bearer "])
async def test_what_is_no_token_is_not_asked_about(authorization: str | None) -> None:
    # A connection that was never opened: a request by it would fail.
    assert await Callers(Cluster(), SystemClock()).of(authorization) is None
