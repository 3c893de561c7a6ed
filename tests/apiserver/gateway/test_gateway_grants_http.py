"""Challenge and grant over TLS, by the agent's own client; and the pod of a token, as a real API server says it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from concordat.artifacts import Access, RegistryUnavailable
from concordat.controller import Cache, Cluster, FixedClock, SystemClock, TokenUser
from concordat.protocol.locations import GATEWAY_AUDIENCE
from concordat_agent.gateway import GrantRefused, HttpGateway, StaleNonce
from concordat_devcluster.control_plane import ControlPlane
from concordat_gateway.budget import Budget
from concordat_gateway.callers import Callers
from concordat_gateway.credentials import Credentials
from concordat_gateway.door import Door
from concordat_gateway.main import application, served
from concordat_gateway.proxy import Gateway
from concordat_gateway.refusals import Denied, NotYet, Refused, Stale
from concordat_gateway.rights import Caller, Pod
from tests.support.certificates import NAME, certificate
from tests.support.hub import NOW

AGENT = "site-a/concordat-agent"
DIGEST = "sha256:" + "a" * 64


class Reviews:
    """The API server's answers: a token is its ServiceAccount's name."""

    async def review_token(self, token: str, audience: str) -> TokenUser | None:
        namespace, _, account = token.partition("/")
        return TokenUser(f"system:serviceaccount:{namespace}:{account}", "pod", "uid") if account else None


class Answers:
    """In the place of Grants: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.why: Refused | None = None
        self.asked: list[Any] = []

    def challenge(self, caller: Caller, contract_digest: str) -> tuple[str, datetime]:
        self.asked.append((caller, caller.pod, contract_digest))
        if self.why is not None:
            raise self.why
        return "nonce", NOW

    async def grant(self, caller: Caller, evidence: bytes, training: bytes | None = None) -> bytes:
        self.asked.append((caller, evidence, training))
        if self.why is not None:
            raise self.why
        return b"a grant"


class Front:
    """A gateway on a port of loopback."""

    def __init__(self, url: str, ca: str, answers: Answers) -> None:
        self.url, self.ca, self.answers = url, ca, answers

    def agent(self, token: str | None = AGENT) -> HttpGateway:
        """The client of an agent."""
        gateway = HttpGateway(self.url, Access(token=lambda: token, ca=self.ca, server_name=NAME))
        gateway._http._sleep = at_once
        return gateway


async def at_once(_: float) -> None:
    """No pause."""


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    reviews: Any = Reviews()
    grants: Any = Answers()
    nothing: Any = None
    ca = certificate(tmp_path)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = Gateway("concordat", "http://127.0.0.1:9", session, Cache(), Budget(1, nothing), nothing)
        app = application(Door(Callers(reviews, FixedClock(NOW))), gateway, Credentials(grants))
        port = await stack.enter_async_context(served(app, 0, tmp_path))
        yield Front(f"https://127.0.0.1:{port}", ca, grants)


async def test_an_agent_gets_a_nonce_and_a_grant(front: Front) -> None:
    async with front.agent() as agent:
        assert await agent.challenge(DIGEST) == "nonce"
        assert await agent.grant(b"evidence") == b"a grant"
        assert await agent.grant(b"evidence", b"training") == b"a grant"
    caller = Caller("site-a", "concordat-agent")
    assert front.answers.asked == [
        (caller, Pod("pod", "uid"), DIGEST),
        (caller, b"evidence", None),
        (caller, b"evidence", b"training"),
    ]


@pytest.mark.parametrize(
    ("why", "raised"),
    [
        (Denied("the Membership of site-a is suspended"), GrantRefused),
        (Stale("the nonce was used before"), StaleNonce),
        (NotYet("the kubelet does not report yet"), RegistryUnavailable),
    ],
)
async def test_each_answer_is_told_apart(front: Front, why: Refused, raised: type[Exception]) -> None:
    front.answers.why = why
    async with front.agent() as agent:
        for step in (agent.challenge(DIGEST), agent.grant(b"evidence")):
            with pytest.raises(raised, match=str(why)):
                await step


@pytest.mark.parametrize("digest", ["", "sha256:x", DIGEST.upper()])
async def test_a_request_that_cannot_be_read_is_refused(front: Front, digest: str) -> None:
    async with front.agent() as agent:
        with pytest.raises(GrantRefused, match="contract: "):
            await agent.challenge(digest)
        with pytest.raises(GrantRefused, match="evidence: "):
            await agent.grant(b"x" * 30_000)
        with pytest.raises(GrantRefused, match="larger than 65536 bytes"):
            await agent.grant(b"x" * 70_000)
    assert front.answers.asked == []


@pytest.mark.attack("a grant asked for by the hub's own accounts, a person, nobody", "gateway", "refused")
async def test_only_a_sites_agent_asks(front: Front) -> None:
    for token in ("concordat/concordat-operator", "site-a/concordat-trainer", "site-a/default"):
        async with front.agent(token) as agent:
            with pytest.raises(GrantRefused, match=f"{token} is no site's agent"):
                await agent.challenge(DIGEST)
    strangers: tuple[str | None, ...] = (None, "alice")
    for nobody in strangers:
        async with front.agent(nobody) as agent:
            with pytest.raises(Exception, match="401"):
                await agent.challenge(DIGEST)
    assert front.answers.asked == []


async def test_a_token_of_a_pod_says_which(crds: ControlPlane) -> None:
    space = "gateway-pod"
    async with Cluster(crds.kubeconfig) as admin:
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
        for name in ("default", "concordat-agent"):
            metadata = {"name": name, "namespace": space}
            await admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, "test")
        container = {"name": "agent", "image": "nowhere.invalid/agent"}
        spec = {
            "serviceAccountName": "concordat-agent",
            "containers": [container],
            "automountServiceAccountToken": False,
        }
        made = await admin.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-x", "namespace": space}, "spec": spec}
        )
        uid = made["metadata"]["uid"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent-x", "uid": uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [GATEWAY_AUDIENCE], "expirationSeconds": 600, "boundObjectRef": bound},
        }
        path = f"/api/v1/namespaces/{space}/serviceaccounts/concordat-agent/token"
        token = (await admin._request("POST", path, body=request))["status"]["token"]
        caller = await Callers(admin, SystemClock()).of(f"Bearer {token}")
        assert caller is not None
        assert caller.pod == Pod("agent-x", uid)
