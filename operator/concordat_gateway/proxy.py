"""Requests to the registry: whose it is, whether it may, and passed on as it came, without holding any of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

import aiohttp
from aiohttp import web
from prometheus_client import Counter as Metric
from yarl import URL

from concordat.api import Membership
from concordat.controller import ApiError, Cache, fields
from concordat_gateway.asked import Act, Asked, asked
from concordat_gateway.budget import Budget
from concordat_gateway.callers import Callers
from concordat_gateway.rights import AGENT, Caller, objection

log = logging.getLogger(__name__)

REQUESTS = Metric("concordat_gateway_requests_total", "Requests to the artifact registry.", ["act", "code"])

_IN_FLIGHT = 32
"""Requests of one caller at a time: a burst of one leaves room for the others."""
_PART = 1 << 18
_ASKED = ("Accept", "Content-Type", "Content-Range", "Content-Length", "Range")
_ANSWERED = ("Content-Type", "Content-Range", "Content-Length", "Range", "Location", "Link", "Docker-Content-Digest")


class Gateway:
    """The registry's only client. `upstream` is where the registry is."""

    def __init__(
        self, hub: str, upstream: str, session: aiohttp.ClientSession, callers: Callers, cache: Cache, budget: Budget
    ) -> None:
        self._hub, self._upstream, self._session = hub, upstream.rstrip("/"), session
        self._callers, self._cache, self._budget = callers, cache, budget
        self._in_flight: Counter[Caller] = Counter()

    def application(self) -> web.Application:
        """Return what is served."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        what = asked(request.method, request.rel_url.raw_path, request.rel_url.query)
        response = await self._answer(request, what)
        REQUESTS.labels(what.act.value if what is not None else "none", response.status).inc()
        return response

    async def _answer(self, request: web.Request, what: Asked | None) -> web.StreamResponse:
        if what is None:
            return _refused(404, "UNSUPPORTED", "only manifests, blobs, uploads and lists of tags are passed on")
        try:
            caller = await self._callers.of(request.headers.get("Authorization"))
        except ApiError as error:
            return _refused(503, "UNAVAILABLE", f"the API server does not say whose token it is: {error}")
        if caller is None:
            return _refused(401, "UNAUTHORIZED", "show a ServiceAccount's token for the audience concordat-gateway")
        membership = self._cache.get(Membership, self._hub, caller.namespace)
        why = objection(caller, what, self._hub, membership)
        if why is None and what.act is Act.PUSH and caller.account == AGENT:
            why = None if (size := request.content_length) is not None else "the length of what is sent must be given"
            if size is not None and not self._budget.take(what.repository, size):
                return _refused(413, "TOOMANYREQUESTS", f"{what.repository} has used up what a site may store there")
        if why is not None:
            said = fields(caller=str(caller), act=what.act.value, repository=what.repository, why=why)
            log.info("refused", extra=said)
            return _refused(403, "DENIED", why)
        if self._in_flight[caller] >= _IN_FLIGHT:
            return _refused(429, "TOOMANYREQUESTS", f"{caller} has {_IN_FLIGHT} requests open")
        self._in_flight[caller] += 1
        try:
            return await self._pass_on(request)
        finally:
            self._in_flight[caller] -= 1
            if not self._in_flight[caller]:
                del self._in_flight[caller]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        url = URL(f"{self._upstream}{request.rel_url.raw_path_qs}", encoded=True)
        body = request.content.iter_chunked(_PART) if request.body_exists else None
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method, url, data=body, headers=_some(request.headers, _ASKED), allow_redirects=False
            ) as answer:
                response = web.StreamResponse(status=answer.status, headers=self._ours(answer.headers))
                await response.prepare(request)
                if request.method != "HEAD":
                    async for part in answer.content.iter_chunked(_PART):
                        await response.write(part)
                await response.write_eof()
                return response
        except (TimeoutError, aiohttp.ClientError) as error:
            if response is not None:
                raise  # What was sent cannot be taken back: the connection ends, and the caller goes on from there.
            return _refused(502, "UNAVAILABLE", f"the registry does not answer: {error!r}")

    def _ours(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what is passed on of an answer's headers: of where it sends to, only what is at the registry."""
        kept = _some(headers, _ANSWERED)
        for name in ("Location", "Link"):
            if name in kept:
                kept[name] = kept[name].replace(f"{self._upstream}/", "/", 1)
        return kept


def _some(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _refused(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)
