"""An operator that can be killed at any write, requests that fail, and a cache in which the test ends Jobs."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any, Self

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore, RegistryUnavailable
from concordat.artifacts.manifest import File
from concordat.controller import JOB, Cache, Cluster, Forbidden
from tests.fakes.api_server import FakeApiServer, FakeCluster
from tests.fakes.registry import MemoryRegistry


class Killed(BaseException):
    """The process died at this write."""


Interference = Callable[[str, str], Exception | Awaitable[Exception | None] | None]
"""From method and path to the error that the caller gets; None lets the request through."""


def forbids(method: str, namespace: str, resource: str = "") -> Interference:
    """Refuse what a site has withdrawn the rights for: one kind of object, or all."""

    def denial(asked: str, path: str) -> Exception | None:
        refused = asked == method and f"/namespaces/{namespace}/{resource}" in path
        return Forbidden(f"cannot {method} {resource or 'anything'} in {namespace}", 403) if refused else None

    return denial


class Mortal(Cluster):
    """A connection whose process can be killed before or after each write that it makes first.

    `before` and `after` may make a request fail, before the API server got it or when the answer is lost.
    """

    moment: str | None = None
    before: Interference | None = None
    after: Interference | None = None
    _seen: set[str]

    async def _request(self, method: str, path: str, query: Any = None, body: Any = None, *more: Any) -> dict[str, Any]:
        write = json.dumps([method, path, body], sort_keys=True, default=str)
        fatal = self.moment if method != "GET" and write not in self._seen else None
        if fatal is not None:
            self._seen.add(write)
        if fatal == "before":
            raise Killed(path)
        await _interfere(self.before, method, path)
        answer = await super()._request(method, path, query, body, *more)
        if fatal == "after":
            raise Killed(path)
        await _interfere(self.after, method, path)
        return answer


async def _interfere(interference: Interference | None, method: str, path: str) -> None:
    error = interference(method, path) if interference is not None else None
    if isinstance(error, Awaitable):
        error = await error
    if error is not None:
        raise error


class Flickering(RegistryStore):
    """A registry that is away now and then."""

    chance: random.Random | None = None
    """Do not answer every third call, at random."""

    async def __aenter__(self) -> Self:
        """As the store does."""
        await super().__aenter__()
        return self

    async def push(self, *args: Any, **more: Any) -> ArtifactRef:
        """As the store does."""
        self._flicker()
        return await super().push(*args, **more)

    async def files(self, ref: ArtifactRef) -> dict[str, File]:
        """As the store does; reading and pulling ask for the files first."""
        self._flicker()
        return await super().files(ref)

    def _flicker(self) -> None:
        if self.chance is not None and self.chance.random() < 1 / 3:
            raise RegistryUnavailable("the registry does not answer")


class FlickeringMemory(Flickering, MemoryRegistry):
    """The same, in memory."""


class MortalCluster(Mortal):
    """The operator's connection to a real API server."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._seen = set()


class MortalFake(Mortal, FakeCluster):
    """The operator's connection to an API server in memory."""

    def __init__(self, server: FakeApiServer) -> None:
        super().__init__(server)
        self._seen = set()


class NodeCache(Cache):
    """The cache, in which Jobs that the test ended have the status that the Job controller would write."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: dict[str, dict[str, Any]] = {}

    def get(self, kind: Any, namespace: str, name: str) -> Any:
        """As the cache has it; Jobs with their end."""
        return self._end(kind, super().get(kind, namespace, name))

    def list(self, kind: Any, namespace: Any = None, labels: Any = None) -> Any:
        """As the cache has it; Jobs with their end."""
        return [self._end(kind, obj) for obj in super().list(kind, namespace, labels)]

    def _end(self, kind: Any, obj: Any) -> Any:
        if kind is not JOB or obj is None:
            return obj
        return {**obj, "status": self.ended.get(obj["metadata"]["uid"], {})}
