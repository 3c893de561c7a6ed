"""The manager when the world is not kind: lost events, an API server that fails, few rights, signals."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from concordat.api import ReleaseChannel
from concordat.controller import (
    NAMESPACE,
    Cache,
    Cluster,
    Controller,
    Key,
    Options,
    Result,
    SystemClock,
    Unavailable,
    run,
)
from concordat_devcluster.control_plane import ControlPlane
from tests.support.namespaces import new_namespace
from tests.support.waiting import no_hang


@pytest.fixture
async def admin(crds: ControlPlane) -> AsyncIterator[Cluster]:
    async with Cluster(crds.kubeconfig) as opened:
        yield opened


@pytest.fixture
async def namespace(admin: Cluster) -> str:
    return await new_namespace(admin, "faults")


def channel(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": "ReleaseChannel",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"federation": "digits", "follow": "Approved"},
    }


class Proxy:
    """Between a program and the API server: drops watch events, ends watches as too old, or fails everything."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._upstream = control_plane.server
        credentials = yaml.safe_load(Path(control_plane.kubeconfig).read_text())
        authority = credentials["clusters"][0]["cluster"]["certificate-authority-data"]
        self._context = ssl.create_default_context(cadata=_decoded(authority))
        self._certificate = control_plane.folder / "pki"
        self.drop: Callable[[dict[str, Any]], bool] = lambda _: False
        self.expire = asyncio.Event()
        self.broken = False
        self.watched = asyncio.Event()
        self._under_way = 0
        self._answered = asyncio.Event()
        self.refused = asyncio.Event()

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[Path]:
        self._context.load_cert_chain(self._certificate / "admin.crt", self._certificate / "admin.key")
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._context)) as self._session:
            yield kubeconfig(folder, f"http://127.0.0.1:{port}")
            await runner.cleanup()

    async def shut(self) -> None:
        """Refuse requests from now on, and return once those under way are answered. Watches go on."""
        self.broken = True
        async with no_hang(lambda: f"the answers to {self._under_way} requests"):
            while self._under_way:
                self._answered.clear()
                await self._answered.wait()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.broken:
            self.refused.set()
            return web.Response(status=503, text="the API server is not itself")
        if "watch=true" in request.query_string:
            return await self._forward(request)
        self._under_way += 1
        try:
            return await self._forward(request)
        finally:
            self._under_way -= 1
            self._answered.set()

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k in ("Content-Type", "Accept")}
        body = await request.read() or None  # Empty bytes would get a content type.
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(request.method, url, data=body, headers=headers) as upstream:
            if "watch=true" not in request.query_string or upstream.status != 200:
                return web.Response(
                    status=upstream.status, body=await upstream.read(), content_type=upstream.content_type
                )
            return await self._stream(request, upstream)

    async def _stream(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        self.watched.set()
        expired = asyncio.create_task(self.expire.wait())
        try:
            while True:
                line = asyncio.create_task(upstream.content.readline())
                await asyncio.wait([line, expired], return_when=asyncio.FIRST_COMPLETED)
                if expired.done():
                    line.cancel()
                    await answer.write(json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n")
                    return answer
                if not line.result():
                    return answer
                if not self.drop(json.loads(line.result())):
                    await answer.write(line.result())
        finally:
            expired.cancel()


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode()


def kubeconfig(folder: Path, server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    path = folder / f"{uuid.uuid4().hex}.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Watcher:
    """A program that knows which channels there are, from its passes alone."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.known: dict[str, bool] = {}
        self.cache = Cache()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def reconcile(self, key: Key) -> Result:
        self.known[key[1]] = self.cache.get(ReleaseChannel, *key) is not None
        self._progress.set()
        return Result()

    async def knows(self, **channels: bool) -> None:
        async with no_hang(lambda: f"{channels}, not {self.known}"):
            while {name: self.known.get(name) for name in channels} != channels:
                self._progress.clear()
                await self._progress.wait()
                if self._task is not None and self._task.done():
                    self._task.result()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        controller = Controller("faults", {ReleaseChannel: lambda c: [c.key]}, self.reconcile)
        task = self._task = asyncio.create_task(
            run(
                [controller],
                Options(namespaces=[self.namespace], leader=None, http_port=0),
                cluster=self.cluster,
                cache=self.cache,
                clock=SystemClock(),
                stop=stop,
            )
        )
        task.add_done_callback(lambda _: self._progress.set())
        try:
            yield task
        finally:
            stop.set()
            async with no_hang(lambda: "the program to stop"):
                await asyncio.wait([task])
        await task


async def test_a_deletion_lost_while_the_watch_was_down_is_found_after_the_next_list(
    crds: ControlPlane, admin: Cluster, namespace: str, tmp_path: Path
) -> None:
    proxy = Proxy(crds)
    async with proxy.serving(tmp_path) as config, Cluster(config) as cluster:
        watcher = Watcher(cluster, namespace)
        await admin.create(channel(namespace, "goes"))
        async with watcher.running():
            await admin.create(channel(namespace, "stays"))
            await watcher.knows(goes=True, stays=True)
            proxy.drop = lambda event: event["type"] == "DELETED"
            async with no_hang(lambda: "a watch"):
                await proxy.watched.wait()
            # Otherwise the list after the start might find it, on a machine so busy that it comes this late.
            await proxy.shut()
            await admin.delete(ReleaseChannel, namespace, "goes")
            await admin.create(channel(namespace, "marker"))
            await watcher.knows(goes=True, stays=True, marker=True)
            proxy.broken = False
            proxy.expire.set()
            await watcher.knows(goes=False, stays=True, marker=True)


async def test_an_outage_delays_and_breaks_nothing(
    crds: ControlPlane, admin: Cluster, namespace: str, tmp_path: Path
) -> None:
    proxy = Proxy(crds)
    proxy.broken = True
    async with proxy.serving(tmp_path) as config, Cluster(config) as cluster:
        with pytest.raises(Unavailable, match="503"):
            await cluster.list(NAMESPACE)
        proxy.refused.clear()
        watcher = Watcher(cluster, namespace)
        await admin.create(channel(namespace, "x"))
        async with watcher.running():
            async with no_hang(lambda: "a refused request"):
                await proxy.refused.wait()
            assert watcher.known == {}
            proxy.broken = False
            await watcher.knows(x=True)


async def test_the_rights_of_a_site_agent_suffice(
    crds: ControlPlane, admin: Cluster, namespace: str, tmp_path: Path
) -> None:
    """Read its own kinds in its own namespace: no right on namespaces, CRDs or anything cluster-wide."""
    rule = {"apiGroups": ["concordat.dev"], "resources": ["releasechannels"], "verbs": ["get", "list", "watch"]}
    meta = {"namespace": namespace, "name": "agent"}
    rbac = "rbac.authorization.k8s.io"
    await admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    await admin.create({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]})
    await admin.create(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "agent"},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        }
    )
    token = crds.kubectl("create", "token", "agent", f"--namespace={namespace}").strip()
    config = kubeconfig(
        tmp_path, crds.server, {"token": token}, **{"certificate-authority": str(crds.folder / "pki" / "ca.crt")}
    )
    async with Cluster(config) as cluster:
        assert (await cluster.connection()).token == token
        watcher = Watcher(cluster, namespace)
        async with watcher.running():
            await admin.create(channel(namespace, "x"))
            await watcher.knows(x=True)
            await admin.delete(ReleaseChannel, namespace, "x")
            await watcher.knows(x=False)


async def test_sigterm_ends_the_program_without_an_error(admin: Cluster, namespace: str) -> None:
    watcher = Watcher(admin, namespace)
    async with watcher.running() as task:
        await admin.create(channel(namespace, "x"))
        await watcher.knows(x=True)
        os.kill(os.getpid(), signal.SIGTERM)
        async with no_hang(lambda: "the program to end"):
            await task
