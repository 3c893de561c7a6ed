"""HTTP requests to one registry, with bounded retries and errors told apart."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp

from concordat.artifacts.access import Access
from concordat.artifacts.errors import ArtifactError, RegistryUnavailable

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")

TRIES = 6
CONNECTIONS = 8
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_BROKEN = (aiohttp.ClientError, asyncio.TimeoutError)
_PORTS = {"http": 80, "https": 443}


class Refused(ArtifactError):
    """The registry answered with a status that was not expected."""

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {status} {text[:500]}")
        self.status = status
        self.text = text


class Interrupted(Exception):
    """A step ended half-way; another try continues it."""


class Http:
    """Requests to one registry, at most CONNECTIONS at a time. Never follows a redirect, keeps no cookies."""

    def __init__(self, url: str, sleep: Sleep = asyncio.sleep, access: Access | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"registry URL {url!r} must look like http://host:port")
        self.url = url.rstrip("/") + "/"
        self._origin = _origin(parts)
        self._sleep = sleep
        self._access = access or Access()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            # No limit on the wait for one of the connections: the transfers before may be as long as they like.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60),
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is hashed must be the bytes that were stored.
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def once(
        self,
        method: str,
        location: str,
        ok: Collection[int],
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One try; raises Refused, ArtifactError for another host, or aiohttp's errors."""
        if self._session is None:
            raise RuntimeError("use the store as an async context manager")
        url = self._same_origin(location)
        shown = {**(headers or {}), **self._access.headers()}
        async with self._session.request(
            method, url, data=data, headers=shown, allow_redirects=False, **self._tls
        ) as response:
            if response.status not in ok:
                text = (await response.content.read(2000)).decode("utf-8", "replace")
                raise Refused(f"{method} {urlsplit(url).path}", response.status, text)
            yield response

    @property
    def _tls(self) -> dict[str, Any]:
        return self._access.tls if self._origin[0] == "https" else {}

    def _same_origin(self, location: str) -> str:
        try:
            url = urljoin(self.url, location)
            same = _origin(urlsplit(url)) == self._origin
        except ValueError as error:
            raise ArtifactError(f"the registry {self.url} named an unusable location: {error}") from error
        if not same:
            raise ArtifactError(
                f"the registry {self.url} sent us to another host, {urlsplit(url).netloc}; nothing was sent there. "
                "Behind a proxy set http.relativeurls in the registry's configuration"
            )
        return url

    async def again(self, what: str, step: Callable[[], Awaitable[T]], progress: Callable[[], int] = lambda: 0) -> T:
        """Run a step until it succeeds, with backoff; at most TRIES times in a row without `progress` growing.

        Tried again: broken connections, time-outs, Interrupted, and the statuses in TRANSIENT.
        """
        failures, reached = 0, progress()
        while True:
            try:
                return await step()
            except Refused as error:
                if error.status not in TRANSIENT:
                    raise
                last: Exception = error
            except (*_BROKEN, Interrupted) as error:
                last = error
            now = progress()
            failures = 1 if now > reached else failures + 1
            reached = max(reached, now)
            if failures == TRIES:
                raise RegistryUnavailable(f"{what}: the registry {self.url} does not answer: {last!r}") from last
            await self._sleep(min(5.0, 0.2 * 2**failures) * random.uniform(0.5, 1))  # noqa: S311  (jitter)


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    if parts.username is not None:
        raise ValueError("a URL with credentials")
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
