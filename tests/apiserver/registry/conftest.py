"""Registries, and proxies in front of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.apiserver.registry.server import Proxy, Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    running = Registry(tmp_path_factory.mktemp("registry"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[Registry]:
    """One that the test may kill."""
    (tmp_path / "registry").mkdir()
    running = Registry(tmp_path / "registry")
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def new_proxy() -> AsyncIterator[Callable[[str], Awaitable[Proxy]]]:
    runners: list[web.AppRunner] = []
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def make(upstream: str) -> Proxy:
            proxy = Proxy(upstream, session)
            application = web.Application(client_max_size=64 << 20)
            application.router.add_route("*", "/{path:.*}", proxy.handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return proxy

        yield make
        for runner in runners:
            await runner.cleanup()
