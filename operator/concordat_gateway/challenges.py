"""Nonces: sealed, so that nothing is kept of those given out; and remembered once used, until they expire."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from concordat.controller import Clock
from concordat_gateway.refusals import Stale

LIFETIME = timedelta(minutes=5)
_RANDOM = 16


class Challenges:
    """Gives out nonces and takes each once. Another process, after a restart too, takes none of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._secret = clock, os.urandom(32)
        self._used: OrderedDict[str, datetime] = OrderedDict()
        """With the time from which nobody could use it anyway, the earliest first."""

    def give(self, site: str, contract: str) -> tuple[str, datetime]:
        """Return a nonce for that site under that contract, and when it expires."""
        expires = self._clock.now().replace(microsecond=0) + LIFETIME
        head = os.urandom(_RANDOM) + struct.pack(">Q", int(expires.timestamp()))
        return base64.urlsafe_b64encode(head + self._seal(head, site, contract)).decode(), expires

    def take(self, nonce: str, site: str, contract: str) -> None:
        """Use a nonce up. Raises Stale as `check` does."""
        self._used[self.check(nonce, site, contract)] = self._clock.now() + LIFETIME

    def check(self, nonce: str, site: str, contract: str) -> str:
        """Return by what a nonce is known, which may be used.

        Raises Stale if it is none of ours, for another site or contract, expired or used.
        """
        try:
            data = base64.b64decode(nonce, altchars=b"-_", validate=True)
            head, seal = data[: _RANDOM + 8], data[_RANDOM + 8 :]
            (expires,) = struct.unpack(">Q", head[_RANDOM:])
        except (binascii.Error, ValueError, struct.error):
            raise Stale("the nonce is none of this gateway's") from None
        if not hmac.compare_digest(seal, self._seal(head, site, contract)):
            raise Stale("the nonce was not given to this site for this contract, or by this process")
        now = self._clock.now()
        self._forget(now)
        # The bytes, not the text: the same bytes can be written in several ways.
        known = head.hex()
        if now >= datetime.fromtimestamp(expires, UTC):
            raise Stale(f"the nonce has expired, after {LIFETIME.total_seconds():.0f} s")
        if known in self._used:
            raise Stale("the nonce was used before")
        return known

    def _seal(self, head: bytes, site: str, contract: str) -> bytes:
        return hmac.digest(self._secret, head + f"{site} {contract}".encode(), hashlib.sha256)

    def _forget(self, now: datetime) -> None:
        while self._used and next(iter(self._used.values())) <= now:
            self._used.popitem(last=False)
