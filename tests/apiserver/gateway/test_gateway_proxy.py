"""The gateway between a client and a registry: let in, refused, bounded; and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from concordat.api import Membership
from concordat.artifacts import Access, ArtifactError, RegistryStore
from concordat.controller import Cache, FixedClock, TokenUser
from concordat.protocol import artifact_types as types
from concordat.protocol.locations import base_repository, decisions_repository, site_repository
from concordat_gateway.budget import Budget, stored
from concordat_gateway.callers import Callers
from concordat_gateway.door import Door
from concordat_gateway.main import application, served
from concordat_gateway.proxy import Gateway
from concordat_gateway.refusals import NotYet
from tests.support.certificates import NAME, certificate
from tests.support.hub import NOW, Make
from tests.support.waiting import no_hang

HUB = "concordat"
USERS = {
    "of-site-a": "system:serviceaccount:site-a:concordat-agent",
    "of-site-b": "system:serviceaccount:site-b:concordat-agent",
    "of-operator": "system:serviceaccount:concordat:concordat-operator",
    "of-publisher": "system:serviceaccount:concordat:concordat-publisher",
    "of-a-person": "alice@example.org",
}


class Reviews:
    """The API server's answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def review_token(self, token: str, audience: str) -> TokenUser | None:
        self.asked.append(token)
        assert audience == "concordat-gateway"
        return TokenUser(USERS[token]) if token in USERS else None


class Hub:
    """A registry with a gateway in front of it, by TLS on a port of loopback."""

    def __init__(self, url: str, ca: str, reviews: Reviews, clock: FixedClock, cache: Cache) -> None:
        self.url, self.ca, self.reviews, self.clock, self.cache = url, ca, reviews, clock, cache

    def access(self, token: str | None, **changes: Any) -> Access:
        """What a client shows."""
        return Access(**{"token": lambda: token, "ca": self.ca, "server_name": NAME, **changes})

    def store(self, token: str | None, **changes: Any) -> RegistryStore:
        """A client with this token."""
        return RegistryStore(self.url, at_once, self.access(token, **changes))


class Rounds:
    """In the place of Contracts: the one open round, and who is in it."""

    async def objection(self, round_uid: str, site: str) -> str | None:
        if round_uid == "busy":
            raise NotYet("the contract of round r1 cannot be read")
        return None if (round_uid, site) == ("open", "site-a") else f"no round {round_uid} for {site}"


rounds: Any = Rounds()


async def nothing_yet(_: str) -> int:
    """What a repository holds."""
    return 0


async def at_once(_: float) -> None:
    """No pause."""


@pytest.fixture
async def hub(registry_url: str, tmp_path: Path) -> AsyncIterator[Hub]:
    cache, reviews, clock = Cache(), Reviews(), FixedClock(NOW)
    cache.watch([Membership])
    for version, name in enumerate(("site-a", "site-b"), start=1):
        wire = Make().membership(name).wire()
        wire["metadata"] |= {"uid": name, "resourceVersion": str(version)}
        cache.feed(wire)
    ca = certificate(tmp_path)
    callers: Any = reviews
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        behind = await stack.enter_async_context(RegistryStore(registry_url, at_once))
        budget = Budget(3 << 20, partial(stored, behind))
        app = application(Door(Callers(callers, clock)), Gateway(HUB, registry_url, session, cache, budget, rounds))
        port = await stack.enter_async_context(served(app, 0, tmp_path))
        yield Hub(f"https://127.0.0.1:{port}", ca, reviews, clock, cache)


OWN, BASE = decisions_repository("digits", "site-a"), base_repository("digits")
FILES = {"a.bin": b"1" * 100_000, "b.json": b"{}"}


async def test_what_is_pushed_through_the_gateway_is_pulled_through_it(hub: Hub, tmp_path: Path) -> None:
    async with hub.store("of-publisher") as publisher, hub.store("of-site-a") as site:
        base = await publisher.push(BASE, types.BASE_PACKAGE, FILES)
        pulled = await site.pull(base, tmp_path / "base")
        assert {file.name: file.read_bytes() for file in pulled.iterdir()} == FILES
        own = await site.push(OWN, types.STATEMENT, {"statement.json": b"{}"})
        assert await site.files(own)
    async with hub.store("of-operator") as operator:
        assert await operator.artifacts(OWN) == [own]
        await operator.delete(own)
        assert await operator.artifacts(OWN) == []
    assert sorted(set(hub.reviews.asked)) == ["of-operator", "of-publisher", "of-site-a"]
    assert len(hub.reviews.asked) == 3


async def test_a_site_reads_nobody_elses_and_writes_nothing_that_is_not_its_own(hub: Hub) -> None:
    async with hub.store("of-site-a") as site, hub.store("of-site-b") as other:
        own = await site.push(OWN, types.STATEMENT, {"statement.json": b"{}"})
        for step in (other.files(own), other.push(OWN, types.STATEMENT, FILES), site.delete(own), site.artifacts(OWN)):
            with pytest.raises(ArtifactError, match="403"):
                await step
        with pytest.raises(ArtifactError, match=f"site site-b may not push {BASE}"):
            await other.push(BASE, types.BASE_PACKAGE, FILES)


@pytest.mark.attack("F3: a slot of a round that is over, or without the site", "gateway", "DENIED")
async def test_a_slot_is_written_while_its_round_is_open_and_names_the_site(hub: Hub) -> None:
    async with hub.store("of-site-a") as site, hub.store("of-site-b") as other:
        await site.push(site_repository("digits", "open", "site-a"), types.STATEMENT, FILES)
        for store, uid, name, status in (
            (site, "ended", "site-a", "403"),
            (other, "open", "site-b", "403"),
            (site, "busy", "site-a", "503"),
        ):
            with pytest.raises(ArtifactError, match=status):
                await store.push(site_repository("digits", uid, name), types.STATEMENT, FILES)


async def test_a_registry_with_credentials_is_shown_those_and_never_a_sites_token(tmp_path: Path) -> None:
    shown: list[str | None] = []

    async def ask(request: web.Request) -> web.Response:
        shown.append(request.headers.get("Authorization"))
        return web.Response(status=404)

    (tmp_path / "username").write_text("concordat\n")
    (tmp_path / "password").write_text("open sesame")
    upstream = web.Application()
    upstream.router.add_route("*", "/{path:.*}", ask)
    callers: Any = Reviews()
    cache, ca = Cache(), certificate(tmp_path)
    cache.watch([Membership])
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(upstream)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        behind = Gateway(HUB, url, session, cache, Budget(1, nothing_yet), rounds, Access.basic(tmp_path))
        front = application(Door(Callers(callers, FixedClock(NOW))), behind)
        port = await stack.enter_async_context(served(front, 0, tmp_path))
        hub = Hub(f"https://127.0.0.1:{port}", ca, callers, FixedClock(NOW), cache)
        assert await answers(hub, "of-operator") == 404
        # They are read again each time: a Secret is renewed.
        (tmp_path / "password").write_text("other")
        assert await answers(hub, "of-operator") == 404
    pairs = ("concordat:open sesame", "concordat:other")
    assert shown == [f"Basic {base64.b64encode(pair.encode()).decode()}" for pair in pairs]


@pytest.mark.parametrize("token", [None, "", "unknown", "of-a-person", "x" * 5000])
@pytest.mark.attack("F3: no token, or an unknown one", "gateway", "UNAUTHORIZED")
async def test_who_is_not_known_is_not_let_in(hub: Hub, token: str | None) -> None:
    async with hub.store(token) as store:
        with pytest.raises(ArtifactError, match="401"):
            await store.artifacts(OWN)


@pytest.mark.attack("F3: a member that was suspended meanwhile", "gateway", "DENIED")
async def test_a_suspended_member_is_not_let_in_any_more(hub: Hub) -> None:
    async with hub.store("of-site-a") as site:
        await site.push(OWN, types.STATEMENT, {"statement.json": b"{}"})
        wire = Make().membership("site-a", suspended=True).wire()
        wire["metadata"] |= {"uid": "site-a", "resourceVersion": "9"}
        hub.cache.feed(wire)
        with pytest.raises(ArtifactError, match="the Membership of site-a is suspended"):
            await site.push(OWN, types.STATEMENT, {"statement.json": b"[]"})


@pytest.mark.attack("F3: a site fills the disk", "gateway", "413")
async def test_a_site_fills_its_own_budget_and_nobody_elses(hub: Hub) -> None:
    async with hub.store("of-site-a") as site, hub.store("of-site-b") as other:
        for number in range(3):
            await site.push(OWN, types.STATEMENT, {"statement.json": bytes([number]) * 900_000})
        with pytest.raises(ArtifactError, match="has used up what a site may store there"):
            await site.push(OWN, types.STATEMENT, {"statement.json": b"3" * 900_000})
        await other.push(decisions_repository("digits", "site-b"), types.STATEMENT, {"statement.json": b"{}"})


@pytest.mark.attack("F3: a site fills the disk, beginning anew with each process", "gateway", "413")
async def test_what_is_stored_counts_after_a_restart_too(registry_url: str) -> None:
    repository = decisions_repository("digits", "site-filling")
    async with RegistryStore(registry_url, at_once) as registry:
        for number in range(3):
            await registry.push(repository, types.STATEMENT, {"statement.json": bytes([number]) * 1000})
        assert await stored(registry, repository) == 3000
        assert await stored(registry, "digits/decisions/nobody") == 0
        budget = Budget(4000, partial(stored, registry))
        assert not await budget.take(repository, 1001)
        assert await budget.take(repository, 1000)
        assert not await budget.take(repository, 1)


async def test_a_token_is_asked_about_again_after_a_minute(hub: Hub) -> None:
    async with hub.store("of-site-a") as site:
        own = await site.push(OWN, types.STATEMENT, {"statement.json": b"{}"})
        hub.clock.advance(61)
        await site.files(own)
    assert hub.reviews.asked == ["of-site-a"] * 2


@pytest.mark.attack("an impostor in place of the gateway", "client, TLS", "nothing is sent")
async def test_a_client_that_trusts_another_authority_sends_nothing(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for changes in ({"ca": certificate(tmp_path / "other")}, {"server_name": "elsewhere"}):
        async with hub.store("of-site-a", **changes) as store:
            with pytest.raises(ArtifactError, match="does not answer"):
                await store.artifacts(OWN)
    assert hub.reviews.asked == []


class Raw:
    """A connection by hand, which can stop in the middle of a request."""

    def __init__(self, hub: Hub, token: str) -> None:
        self._hub, self._token = hub, token

    async def __aenter__(self) -> Raw:
        tls = self._hub.access(self._token).tls
        port = int(self._hub.url.rpartition(":")[2])
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls["ssl"], server_hostname=NAME
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def begin(self, size: int, sent: bytes = b"x") -> None:
        """Begin an upload of so many bytes, and send few of them; returns when the gateway has passed it on."""
        head = f"POST /v2/{OWN}/blobs/uploads/ HTTP/1.1\r\nHost: {NAME}\r\n"
        shown = f"Authorization: Bearer {self._token}\r\n"
        self.writer.write(f"{head}{shown}Content-Length: 0\r\n\r\n".encode())
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        location = next(line for line in answer.splitlines() if line.lower().startswith("location: ")).split(": ")[1]
        words = f"PATCH {location} HTTP/1.1\r\nHost: {NAME}\r\n{shown}Content-Length: {size}\r\n\r\n"
        self.writer.write(words.encode() + sent)
        await self.writer.drain()


async def answers(hub: Hub, token: str) -> int:
    """The status of a small request."""
    access = hub.access(token)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{hub.url}/v2/{OWN}/manifests/x", headers=access.headers(), **access.tls) as response,
    ):
        return response.status


@pytest.mark.attack("uploads that break off", "gateway", "nothing is held, nothing kept")
async def test_uploads_that_break_off_hold_nothing(hub: Hub) -> None:
    for _ in range(40):
        async with Raw(hub, "of-site-a") as raw:
            await raw.begin(1000)
    async with hub.store("of-site-a") as site, no_hang(lambda: "a push after 40 that broke off"):
        own = await site.push(OWN, types.STATEMENT, {"statement.json": b"{}"})
        assert await site.files(own)


@pytest.mark.attack("slow uploads, as many as one caller may have", "gateway", "429, the caller alone")
async def test_slow_uploads_of_one_keep_nobody_else_waiting(hub: Hub) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(32):
            await (await stack.enter_async_context(Raw(hub, "of-site-a"))).begin(1000)
        async with no_hang(lambda: "the gateway to have taken 32 uploads"):
            while await answers(hub, "of-site-a") != 429:
                continue
        async with hub.store("of-site-b") as other:
            await other.push(decisions_repository("digits", "site-b"), types.STATEMENT, FILES)
    async with no_hang(lambda: "the gateway to let go of 32 uploads"):
        while await answers(hub, "of-site-a") == 429:
            continue


@pytest.mark.attack("a burst of requests by one caller", "gateway", "429")
async def test_a_burst_of_one_leaves_room_for_the_others(tmp_path: Path) -> None:
    """A caller has so many requests open at most; whoever is refused comes again."""
    arrived, refused, go = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        arrived.release()
        await go.wait()
        return web.Response(status=404)

    app, cache = web.Application(), Cache()
    app.router.add_route("*", "/{path:.*}", slow)
    cache.watch([Membership])
    callers: Any = Reviews()
    ca = certificate(tmp_path)
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        passing, many, one = [
            await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)))
            for _ in range(3)
        ]
        upstream = f"http://127.0.0.1:{runner.addresses[0][1]}"
        door = Door(Callers(callers, FixedClock(NOW)))
        front = application(door, Gateway(HUB, upstream, passing, cache, Budget(1, nothing_yet), rounds))
        port = await stack.enter_async_context(served(front, 0, tmp_path))
        tls = Access(ca=ca, server_name=NAME).tls

        async def ask(session: aiohttp.ClientSession, token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            url = f"https://127.0.0.1:{port}/v2/digits/base/tags/list"
            async with session.get(url, headers=headers, **tls) as response:
                if response.status == 429:
                    refused.release()
                return response.status

        burst = [asyncio.create_task(ask(many, "of-operator")) for _ in range(2000)]
        async with no_hang(lambda: "32 requests to pass and the others to be refused"):
            for _ in range(32):
                await arrived.acquire()
            assert await ask(one, "of-publisher") == 403
            for _ in range(2000 - 32):
                await refused.acquire()
        go.set()
        assert Counter(await asyncio.gather(*burst)) == {429: 2000 - 32, 404: 32}
