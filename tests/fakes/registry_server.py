"""A registry in memory that speaks HTTP as distribution-spec 1.1 says, and notes who asked for what."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from concordat.artifacts import RegistryStore
from concordat.artifacts.manifest import MANIFEST_TYPE
from concordat.protocol.canonical import sha256_digest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RegistryServer:
    """A registry on a free port of loopback; use as an async context manager.

    Each party reaches it by a path of its own, `{url}/{party}`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests: dict[str, list[str]] = defaultdict(list)
        """By party: method, what it is about, and the repository."""
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], bytes] = {}
        self.tags: dict[tuple[str, str], str] = {}
        self.names_digests = True
        """Whether the answer to a manifest says what was stored."""
        self.change: Callable[[bytes], bytes] = lambda body: body
        """What happens to a manifest on its way here."""
        self._uploads: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 << 20, middlewares=[self._note])
        uploads, upload = "/{party}/v2/{repository:.+}/blobs/uploads/", "/{party}/v2/{repository:.+}/blobs/uploads/{id}"
        blob, manifest = "/{party}/v2/{repository:.+}/blobs/{digest}", "/{party}/v2/{repository:.+}/manifests/{at}"
        application.add_routes(
            [
                web.post(uploads, self._open),
                web.get(upload, self._upload),
                web.patch(upload, self._append),
                web.put(upload, self._commit),
                web.get(blob, self._blob),
                web.get(manifest, self._manifest),
                web.put(manifest, self._put),
                web.delete(manifest, self._delete),
                web.get("/{party}/v2/{repository:.+}/tags/list", self._list),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def store(self, party: str) -> RegistryStore:
        """Return a connection of a party, open as long as the registry."""
        return await self._stack.enter_async_context(RegistryStore(f"{self.url}/{party}", at_once))

    @web.middleware
    async def _note(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note the request before it is answered."""
        what = next(part for part in ("manifests", "uploads", "blobs", "tags") if f"/{part}/" in request.path)
        party, repository = request.match_info["party"], request.match_info["repository"]
        self.requests[party].append(f"{request.method} {what} {repository}")
        return await handler(request)

    async def _open(self, request: web.Request) -> web.Response:
        name = str(next(self._numbers))
        self._uploads[name] = b""
        return web.Response(status=202, headers={"Location": f"{request.path}{name}?state=0"})

    async def _upload(self, request: web.Request) -> web.Response:
        return self._received(request, 204)

    async def _append(self, request: web.Request) -> web.Response:
        if request.match_info["id"] in self._uploads:
            self._uploads[request.match_info["id"]] += await request.read()
        return self._received(request, 202)

    def _received(self, request: web.Request, status: int) -> web.Response:
        data = self._uploads.get(request.match_info["id"])
        if data is None:
            return web.Response(status=404)
        location = f"{request.path}?state={len(data)}"
        return web.Response(status=status, headers={"Location": location, "Range": f"0-{max(len(data) - 1, 0)}"})

    async def _commit(self, request: web.Request) -> web.Response:
        data = self._uploads.pop(request.match_info["id"], b"") + await request.read()
        if sha256_digest(data) != request.query["digest"]:
            return web.Response(status=400, text="DIGEST_INVALID")
        self.blobs[request.match_info["repository"], request.query["digest"]] = data
        return web.Response(status=201)

    async def _blob(self, request: web.Request) -> web.Response:
        data = self.blobs.get((request.match_info["repository"], request.match_info["digest"]))
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _manifest(self, request: web.Request) -> web.Response:
        repository, at = request.match_info["repository"], request.match_info["at"]
        digest = self.tags.get((repository, at), at)
        data = self.manifests.get((repository, digest))
        if data is None:
            return web.Response(status=404)
        headers = {"Content-Type": MANIFEST_TYPE, "Docker-Content-Digest": digest}
        return web.Response(body=data, headers=headers)

    async def _put(self, request: web.Request) -> web.Response:
        repository, at = request.match_info["repository"], request.match_info["at"]
        data = self.change(await request.read())
        digest, document = sha256_digest(data), json.loads(data)
        if any((repository, layer["digest"]) not in self.blobs for layer in [document["config"], *document["layers"]]):
            return web.Response(status=400, text="MANIFEST_BLOB_UNKNOWN")
        self.manifests[repository, digest] = data
        if at != digest:
            self.tags[repository, at] = digest
        headers = {"Docker-Content-Digest": digest} if self.names_digests else {}
        return web.Response(status=201, headers=headers)

    async def _delete(self, request: web.Request) -> web.Response:
        repository, digest = request.match_info["repository"], request.match_info["at"]
        found = self.manifests.pop((repository, digest), None)
        self.tags = {key: value for key, value in self.tags.items() if (key[0], value) != (repository, digest)}
        return web.Response(status=404 if found is None else 202)

    async def _list(self, request: web.Request) -> web.Response:
        repository = request.match_info["repository"]
        return web.json_response({"name": repository, "tags": [tag for at, tag in self.tags if at == repository]})


async def at_once(seconds: float) -> None:
    """Backoff without waiting."""
