"""Requests to the registry: whose it is, whether it may, and passed on as it came, without holding any of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import aiohttp
from aiohttp import web
from prometheus_client import Counter as Metric
from yarl import URL

from concordat.api import Membership
from concordat.artifacts import Access, ArtifactError
from concordat.controller import Cache, fields
from concordat_gateway.asked import Act, Asked, asked
from concordat_gateway.budget import Budget
from concordat_gateway.contracts import Contracts
from concordat_gateway.door import CALLER, refused
from concordat_gateway.refusals import NotYet
from concordat_gateway.rights import AGENT, objection, round_of

log = logging.getLogger(__name__)

REQUESTS = Metric("concordat_gateway_requests_total", "Requests to the artifact registry.", ["act", "code"])

_PART = 1 << 18
_ASKED = ("Accept", "Content-Type", "Content-Range", "Content-Length", "Range")
_ANSWERED = ("Content-Type", "Content-Range", "Content-Length", "Range", "Location", "Link", "Docker-Content-Digest")


class Gateway:
    """The registry's only client. `upstream` is where the registry is, `access` what it asks of its client."""

    def __init__(
        self,
        hub: str,
        upstream: str,
        session: aiohttp.ClientSession,
        cache: Cache,
        budget: Budget,
        contracts: Contracts,
        access: Access | None = None,
    ) -> None:
        self._hub, self._upstream, self._session = hub, upstream.rstrip("/"), session
        self._cache, self._budget, self._contracts = cache, budget, contracts
        self._access = access or Access()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        what = asked(request.method, request.rel_url.raw_path, request.rel_url.query)
        response = await self._answer(request, what)
        REQUESTS.labels(what.act.value if what is not None else "none", response.status).inc()
        return response

    async def _answer(self, request: web.Request, what: Asked | None) -> web.StreamResponse:
        if what is None:
            return refused(404, "UNSUPPORTED", "only manifests, blobs, uploads and lists of tags are passed on")
        caller = request[CALLER]
        membership = self._cache.get(Membership, self._hub, caller.namespace)
        why = objection(caller, what, self._hub, membership)
        if why is None and what.act is Act.PUSH and caller.account == AGENT:
            uid, size = round_of(what.repository), request.content_length
            try:
                why = await self._contracts.objection(uid, caller.namespace) if uid else None
                if why is None and size is None:
                    why = "the length of what is sent must be given"
                elif why is None and size is not None and not await self._budget.take(what.repository, size):
                    return refused(413, "TOOMANYREQUESTS", f"{what.repository} has used up what a site may store there")
            except NotYet as error:
                return refused(error.status, error.code, str(error))
            except ArtifactError as error:
                return refused(503, "UNAVAILABLE", f"the registry does not say what {what.repository} holds: {error}")
        if why is not None:
            said = fields(caller=str(caller), act=what.act.value, repository=what.repository, why=why)
            log.info("refused", extra=said)
            return refused(403, "DENIED", why)
        return await self._pass_on(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        url = URL(f"{self._upstream}{request.rel_url.raw_path_qs}", encoded=True)
        body = request.content.iter_chunked(_PART) if request.body_exists else None
        headers = {**_some(request.headers, _ASKED), **self._access.headers()}
        response: web.StreamResponse | None = None
        try:
            async with self._session.request(
                request.method, url, data=body, headers=headers, allow_redirects=False
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
            return refused(502, "UNAVAILABLE", f"the registry does not answer: {error!r}")

    def _ours(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what is passed on of an answer's headers: of where it sends to, only what is at the registry."""
        kept = _some(headers, _ANSWERED)
        for name in ("Location", "Link"):
            if name in kept:
                kept[name] = kept[name].replace(f"{self._upstream}/", "/", 1)
        return kept


def _some(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}
