"""Requests to a registry that is slow."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from concordat.artifacts.http import CONNECTIONS, Http
from tests.support.waiting import no_hang


async def test_a_request_that_waits_for_slow_ones_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than connections, each of which takes 40 seconds."""
    waiting, full, go = 0, asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        nonlocal waiting
        waiting += 1
        if waiting == CONNECTIONS:
            full.set()
        await go.wait()
        return web.Response()

    application = web.Application()
    application.router.add_get("/", slow)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    http = Http(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await http.open()

    async def get() -> int:
        async with http.once("GET", "", {200}) as response:
            return response.status

    requests = [asyncio.create_task(get()) for _ in range(CONNECTIONS + 1)]
    async with no_hang(lambda: f"{CONNECTIONS} requests, not {waiting}"):
        await full.wait()
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 40)
    await asyncio.sleep(0)  # What has run out of time is told here.
    go.set()
    assert await asyncio.gather(*requests) == [200] * (CONNECTIONS + 1)
    await http.close()
    await runner.cleanup()
