"""A real OCI registry (CNCF distribution), and a proxy in front of it that breaks things on purpose."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from concordat_devcluster.processes import answers, free_port, start, stop, wait_for
from concordat_devcluster.tools import ensure_tools
from tests.support.waiting import HANG_SECONDS

_HOP_BY_HOP = {"Content-Length", "Transfer-Encoding", "Connection"}


class Registry:
    """`registry serve` on a free loopback port, with storage in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = folder / "config.yml"
        configuration = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            # Unset, it would be another one after a restart, and the locations of open uploads would be void.
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "loopback"},
        }
        self._config.write_text(json.dumps(configuration))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        log = self._folder / "registry.log"
        process = self._process = start([ensure_tools() / "registry", "serve", self._config], log)
        wait_for("registry", lambda: answers(f"{self.url}/v2/"), HANG_SECONDS, lambda: process.poll() is None, log)

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            stop(self._process, 5)
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def blob(self, digest: str) -> Path:
        """The file that holds a blob."""
        value = digest.removeprefix("sha256:")
        return self._folder / "data/docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Proxy:
    """Passes requests on to a registry, unless `fault` answers."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.session = session
        self.fault: Fault | None = None
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        answer = await self.fault(request) if self.fault else None
        return answer if answer is not None else await self.forward(request)

    async def forward(self, request: web.Request) -> web.Response:
        """What the registry answers."""
        headers = {k: v for k, v in request.headers.items() if k not in _HOP_BY_HOP}
        url = URL(self.upstream + request.raw_path, encoded=True)
        async with self.session.request(
            request.method, url, data=await request.read(), headers=headers, allow_redirects=False
        ) as response:
            kept = {k: v for k, v in response.headers.items() if k not in _HOP_BY_HOP}
            return web.Response(status=response.status, body=await response.read(), headers=kept)
