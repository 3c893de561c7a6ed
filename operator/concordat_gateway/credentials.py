"""The requests by which a site's agent comes by its grants: `POST /v1/challenges` and `POST /v1/grants`."""

from __future__ import annotations

import logging
from typing import Annotated, TypeVar

from aiohttp import web
from prometheus_client import Counter, Histogram
from pydantic import Field, ValidationError

from concordat.api.types import Model, Sha256
from concordat.controller import fields
from concordat.statements.fields import rfc3339
from concordat_gateway.door import CALLER, refused
from concordat_gateway.grants import Grants
from concordat_gateway.refusals import Denied, Malformed, Refused
from concordat_gateway.rights import AGENT, Caller

log = logging.getLogger(__name__)

ASKED = Counter("concordat_gateway_grants_total", "Requests for challenges and grants.", ["request", "code"])
SECONDS = Histogram("concordat_gateway_grant_seconds", "From a request for a grant to its answer.")

MOST_BYTES = 64 << 10
"""Largest request that is read."""
M = TypeVar("M", bound=Model)
_Bundle = Annotated[str, Field(min_length=1, max_length=24 << 10)]


class _Challenge(Model):
    contract: Sha256


class _Asked(Model):
    evidence: _Bundle
    training: _Bundle | None = None


class Credentials:
    """Answers agents."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    def routes(self) -> list[web.RouteDef]:
        """Return what is served."""
        return [web.post("/v1/challenges", self._challenge), web.post("/v1/grants", self._grant)]

    async def _challenge(self, request: web.Request) -> web.Response:
        try:
            asked = await _read(request, _Challenge)
            nonce, expires = self._grants.challenge(_agent(request), asked.contract)
        except Refused as why:
            return _no(request, "challenge", why)
        ASKED.labels("challenge", "GIVEN").inc()
        return web.json_response({"nonce": nonce, "expires": rfc3339(expires)})

    async def _grant(self, request: web.Request) -> web.Response:
        try:
            with SECONDS.time():
                asked = await _read(request, _Asked)
                training = asked.training.encode() if asked.training is not None else None
                grant = await self._grants.grant(_agent(request), asked.evidence.encode(), training)
        except Refused as why:
            return _no(request, "grant", why)
        ASKED.labels("grant", "GIVEN").inc()
        return web.json_response({"grant": grant.decode()})


def _agent(request: web.Request) -> Caller:
    caller = request[CALLER]
    if caller.account != AGENT:
        raise Denied(f"{caller} is no site's agent")
    return caller


async def _read(request: web.Request, model: type[M]) -> M:
    try:
        return model.model_validate_json(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise Malformed(f"the request is larger than {MOST_BYTES} bytes") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise Malformed(f"{where}: {first['msg']}") from None


def _no(request: web.Request, what: str, why: Refused) -> web.Response:
    ASKED.labels(what, why.code).inc()
    log.info("refused", extra=fields(caller=str(request[CALLER]), request=what, code=why.code, why=str(why)))
    return refused(why.status, why.code, str(why))
