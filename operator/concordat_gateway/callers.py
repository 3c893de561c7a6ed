"""Who asks: the ServiceAccount of a token that was made for the gateway, as the API server says."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict

from concordat.controller import Clock, Cluster, TokenUser
from concordat.protocol.locations import GATEWAY_AUDIENCE
from concordat_gateway.rights import Caller, Pod

_KNOWN_SECONDS = 60.0
"""For how long an answer of the API server is believed, also after the token's pod is gone."""
_MOST_KNOWN = 20_000
_AT_ONCE = 16
_LONGEST = 4096
_USER = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")


class Callers:
    """Asks the API server whose token it is, once a minute for each."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._known: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def of(self, authorization: str | None) -> Caller | None:
        """Return whose request it is; None if the token is none, or not for the gateway. Raises ApiError."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST:
            return None
        digest, now = hashlib.sha256(token.encode()).digest(), self._clock.monotonic()
        known = self._known.get(digest)
        if known is not None and now - known[0] < _KNOWN_SECONDS:
            return known[1]
        async with self._slots:
            user = await self._cluster.review_token(token, GATEWAY_AUDIENCE)
        found = _USER.fullmatch(user.name) if user is not None else None
        caller = Caller(found[1], found[2], _pod(user)) if user is not None and found is not None else None
        self._known[digest] = (now, caller)
        self._known.move_to_end(digest)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return caller


def _pod(user: TokenUser) -> Pod | None:
    return Pod(user.pod, user.pod_uid) if user.pod and user.pod_uid else None
