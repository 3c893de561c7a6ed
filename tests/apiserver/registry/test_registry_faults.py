"""The registry dies, answers nonsense, loses what it was given, or sends us elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactError, RegistryStore, RegistryUnavailable
from concordat.artifacts.http import TRIES
from concordat.protocol.artifact_types import UPDATE
from tests.apiserver.registry.server import Fault, Proxy, Registry

NewProxy = Callable[[str], Awaitable[Proxy]]
CONTENT = random.Random(0).randbytes(32 << 20)  # noqa: S311 - two chunks, nowhere the same


class Pauses:
    """Backoff that does not wait, but notes what it was asked for, and does `then` instead."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.seconds: list[float] = []
        self._then = then

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._then()


def times(count: int, method: str, part: str, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Fault:
    """A fault on the first `count` requests of a method whose path contains `part`."""
    left = count

    async def fault(request: web.Request) -> web.StreamResponse | None:
        nonlocal left
        if left and request.method == method and part in request.path:
            left -= 1
            return await answer(request)
        return None

    return fault


def status(code: int, text: str = "") -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=code, text=text)

    return answer


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer, in the middle of the request's body."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("HEAD", "/blobs/"),
        ("POST", "/uploads/"),
        ("PATCH", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/"),
        ("GET", "/manifests/"),
        ("GET", "/blobs/sha256"),
        ("DELETE", "/manifests/"),
    ],
)
@pytest.mark.parametrize("answer", [status(503), status(500), status(429), hang_up], ids=["503", "500", "429", "cut"])
async def test_two_failures_of_any_request_are_survived(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path, method: str, part: str, answer: Any
) -> None:
    proxy, pauses = await new_proxy(registry.url), Pauses()
    proxy.fault = times(2, method, part, answer)
    # Only a large file is asked for and sent in chunks.
    content = str(tmp_path).encode() + (CONTENT if method in ("HEAD", "PATCH") else b"")
    # The store knows what it pushed itself, so another reads.
    async with RegistryStore(proxy.url, pauses) as store, RegistryStore(proxy.url, pauses) as reader:
        ref = await store.push("digits/faults", UPDATE, {"a": content})
        assert await reader.read(ref, "a", limit=len(content)) == content
        await store.delete(ref)
    assert 1 <= len(pauses.seconds) <= 2  # a connection that broke while idle is replaced without a pause
    assert all(0 < s <= 5 for s in pauses.seconds)


async def test_an_outage_is_told_after_bounded_tries(registry: Registry, new_proxy: NewProxy) -> None:
    proxy, pauses = await new_proxy(registry.url), Pauses()
    proxy.fault = times(10**6, "POST", "/uploads/", status(503))
    async with RegistryStore(proxy.url, pauses) as store:
        with pytest.raises(RegistryUnavailable, match="503"):
            await store.push("digits/outage", UPDATE, {"a": b"a"})
    assert [method for method, _ in proxy.requests].count("POST") == TRIES
    assert len(pauses.seconds) == TRIES - 1
    assert sum(pauses.seconds) < 15


async def test_nobody_listens(own_registry: Registry) -> None:
    own_registry.stop()
    async with RegistryStore(own_registry.url, Pauses()) as store:
        with pytest.raises(RegistryUnavailable, match="does not answer"):
            await store.file_digests(ArtifactRef(repository="a/b", digest="sha256:" + "0" * 64))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413])
async def test_a_refusal_is_final(registry: Registry, new_proxy: NewProxy, code: int) -> None:
    proxy, pauses = await new_proxy(registry.url), Pauses()
    proxy.fault = times(10**6, "POST", "/uploads/", status(code, "because"))
    async with RegistryStore(proxy.url, pauses) as store:
        with pytest.raises(ArtifactError, match=f"{code} because") as raised:
            await store.push("digits/refusal", UPDATE, {"a": b"refused"})
    assert not isinstance(raised.value, RegistryUnavailable)
    assert pauses.seconds == []


async def test_a_registry_killed_inside_a_chunk_gets_the_rest(
    own_registry: Registry, new_proxy: NewProxy, tmp_path: Path
) -> None:
    """kill -9 while half of the second chunk is under way; the restarted registry keeps what it had."""
    proxy, patches = await new_proxy(own_registry.url), 0

    async def fault(request: web.Request) -> web.StreamResponse | None:
        nonlocal patches
        patches += request.method == "PATCH"
        if request.method != "PATCH" or patches != 2:
            return None
        _, writer = await asyncio.open_connection("127.0.0.1", own_registry.port)
        head = f"{request.method} {request.raw_path} HTTP/1.1\r\nHost: {urlsplit(proxy.url).netloc}\r\n"
        for name in ("Content-Length", "Content-Range", "Content-Type"):
            head += f"{name}: {request.headers[name]}\r\n"
        writer.write(head.encode() + b"\r\n" + await request.content.readexactly(7 << 20))
        await writer.drain()
        own_registry.kill()
        writer.close()
        return await hang_up(request)

    proxy.fault = fault
    pauses = Pauses(lambda: None if own_registry.running else own_registry.start())
    path = tmp_path / "large"
    path.write_bytes(CONTENT)
    async with RegistryStore(proxy.url, pauses) as store:
        ref = await store.push("digits/killed", UPDATE, {"large": path})
        assert await store.read(ref, "large", limit=len(CONTENT)) == CONTENT
    uploads = [r for r in proxy.requests if r[0] == "POST"]
    assert len(uploads) == 2  # one for the empty configuration, one for the file: its session went on
    assert len(pauses.seconds) >= 1


@pytest.mark.parametrize("code", [404, 416])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_lost_upload_session_is_begun_again(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path, code: int, method: str
) -> None:
    proxy = await new_proxy(registry.url)
    proxy.fault = times(1, method, "/uploads/", status(code))
    content = f"{code} {tmp_path}".encode() + (CONTENT if method == "PATCH" else b"")
    async with RegistryStore(proxy.url, Pauses()) as store, RegistryStore(registry.url, Pauses()) as reader:
        ref = await store.push("digits/session", UPDATE, {"a": content})
        assert await reader.read(ref, "a", limit=len(content)) == content


async def test_a_small_file_of_which_half_arrived_is_begun_again_or_continued(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path
) -> None:
    proxy = await new_proxy(registry.url)

    async def half(request: web.Request) -> web.StreamResponse:
        """Send the registry half of the body, and break off."""
        body = await request.read()
        assert len(body) > 1000
        address = urlsplit(registry.url)
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"PUT {request.raw_path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + body[: len(body) // 2])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        return await hang_up(request)

    content = str(tmp_path).encode() * 1000
    async with RegistryStore(proxy.url, Pauses()) as store, RegistryStore(registry.url, Pauses()) as reader:
        await store.push("digits/half", UPDATE, {})
        proxy.fault = times(1, "PUT", "/uploads/", half)
        ref = await store.push("digits/half", UPDATE, {"a": content})
        assert await reader.read(ref, "a") == content


async def test_an_answer_lost_after_the_last_byte_costs_nothing(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path
) -> None:
    proxy = await new_proxy(registry.url)

    async def stored_but_silent(request: web.Request) -> web.StreamResponse:
        await proxy.forward(request)
        return await hang_up(request)

    proxy.fault = times(1, "PUT", "/uploads/", stored_but_silent)
    async with RegistryStore(proxy.url, Pauses()) as store:
        await store.push("digits/silent", UPDATE, {"a": str(tmp_path).encode()})
    assert [r[0] for r in proxy.requests].count("POST") == 2  # the empty configuration and the file, once each


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_bytes_swapped_on_the_way_are_sent_again_once(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path, method: str
) -> None:
    proxy = await new_proxy(registry.url)
    forward = proxy.forward

    async def swapped(request: web.Request) -> web.StreamResponse:
        request._read_bytes = (await request.read())[::-1]
        answer: web.StreamResponse = await forward(request)
        return answer

    content = str(tmp_path).encode() + (CONTENT if method == "PATCH" else b"")
    async with RegistryStore(proxy.url, Pauses()) as store, RegistryStore(registry.url, Pauses()) as reader:
        await store.push("digits/swapped", UPDATE, {})
        proxy.fault = times(1, method, "/uploads/", swapped)
        ref = await store.push("digits/swapped", UPDATE, {"a": content})
        assert await reader.read(ref, "a", limit=len(content)) == content
        proxy.fault = times(10**6, method, "/uploads/", swapped)
        with pytest.raises(ArtifactError, match="does not hash to"):
            await store.push("digits/swapped", UPDATE, {"a": content + b"2"})


async def test_another_host_gets_nothing(registry: Registry, new_proxy: NewProxy) -> None:
    elsewhere, proxy = await new_proxy(registry.url), await new_proxy(registry.url)

    async def lure(request: web.Request) -> web.StreamResponse:
        return web.Response(status=202, headers={"Location": f"{elsewhere.url}/v2/digits/lure/blobs/uploads/x"})

    proxy.fault = times(10**6, "POST", "/uploads/", lure)
    async with RegistryStore(proxy.url, Pauses()) as store:
        with pytest.raises(ArtifactError, match="sent us to another host") as raised:
            await store.push("digits/lure", UPDATE, {"a": b"secret"})
    assert not isinstance(raised.value, RegistryUnavailable)
    assert elsewhere.requests == []


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
async def test_redirects_are_not_followed(registry: Registry, new_proxy: NewProxy, part: str) -> None:
    elsewhere, proxy = await new_proxy(registry.url), await new_proxy(registry.url)

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": elsewhere.url + request.path_qs})

    async with RegistryStore(registry.url, Pauses()) as store, RegistryStore(proxy.url, Pauses()) as reader:
        ref = await store.push("digits/redirect", UPDATE, {"a": part.encode()})
        proxy.fault = times(10**6, "GET", part, redirect)
        with pytest.raises(ArtifactError, match="307"):
            await reader.read(ref, "a")
    assert elsewhere.requests == []


async def test_blobs_collected_before_the_manifest_are_sent_again(own_registry: Registry, new_proxy: NewProxy) -> None:
    proxy = await new_proxy(own_registry.url)
    content = b"collected"
    links = own_registry.blob("sha256:00").parents[3] / "repositories/digits/collected/_layers"

    async def collect(request: web.Request) -> web.StreamResponse:
        own_registry.blob("sha256:" + hashlib.sha256(content).hexdigest()).unlink()
        shutil.rmtree(links)
        answer: web.StreamResponse = await proxy.forward(request)
        assert answer.status == 400
        return answer

    proxy.fault = times(1, "PUT", "/manifests/", collect)
    async with RegistryStore(proxy.url, Pauses()) as store, RegistryStore(own_registry.url, Pauses()) as reader:
        ref = await store.push("digits/collected", UPDATE, {"a": content})
        assert await reader.read(ref, "a") == content


@pytest.mark.parametrize("supports_ranges", [True, False])
async def test_a_download_cut_twice_is_continued(
    registry: Registry, new_proxy: NewProxy, tmp_path: Path, supports_ranges: bool
) -> None:
    proxy = await new_proxy(registry.url)
    ranges: list[str | None] = []

    async def cut(request: web.Request) -> web.StreamResponse:
        ranges.append(request.headers.get("Range"))
        whole = await proxy.forward(request)
        body = whole.body if supports_ranges else CONTENT
        assert isinstance(body, bytes)
        response = web.StreamResponse(status=whole.status if supports_ranges else 200)
        response.headers["Content-Length"] = str(len(body))
        if supports_ranges and "Content-Range" in whole.headers:
            response.headers["Content-Range"] = whole.headers["Content-Range"]
        await response.prepare(request)
        await response.write(body[: 5 << 20])
        return await hang_up(request)

    async with RegistryStore(proxy.url, Pauses()) as store:
        ref = await store.push("digits/cut", UPDATE, {"large": CONTENT})
        proxy.fault = times(2, "GET", "/blobs/", cut)
        pulled = await store.pull(ref, tmp_path / "pulled")
    assert (pulled / "large").read_bytes() == CONTENT
    assert ranges[0] is None
    assert len(ranges) == 2
    if supports_ranges:
        assert ranges[1] is not None
