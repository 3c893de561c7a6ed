"""Who comes in: whose token a request shows, and how many requests one caller may have open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web

from concordat.controller import ApiError
from concordat_gateway.callers import Callers
from concordat_gateway.rights import Caller

_IN_FLIGHT = 32
"""Requests of one caller at a time: a burst of one leaves room for the others."""

CALLER = web.RequestKey("caller", Caller)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refused(status: int, code: str, message: str) -> web.Response:
    """Return an answer as a registry gives errors (distribution-spec 1.1)."""
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)


class Door:
    """Lets a request in with its caller, or answers it."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._open: Counter[Caller] = Counter()

    async def enter(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request by a caller that is known, and has not too many open."""
        try:
            caller = await self._callers.of(request.headers.get("Authorization"))
        except ApiError as error:
            return refused(503, "UNAVAILABLE", f"the API server does not say whose token it is: {error}")
        if caller is None:
            return refused(401, "UNAUTHORIZED", "show a ServiceAccount's token for the audience concordat-gateway")
        if self._open[caller] >= _IN_FLIGHT:
            return refused(429, "TOOMANYREQUESTS", f"{caller} has {_IN_FLIGHT} requests open")
        self._open[caller] += 1
        request[CALLER] = caller
        try:
            return await handler(request)
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
