"""A token bucket, so that one program cannot flood the API server with writes."""

from __future__ import annotations

import asyncio


class TokenBucket:
    """At most `burst` at once and `rate` per second in the long run, first come first served."""

    def __init__(self, rate: float, burst: int) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"rate {rate} and burst {burst} must be positive")
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._updated: float | None = None

    def reserve(self, now: float) -> float:
        """Take a token and return the seconds to wait before using it. `now` is monotonic, in seconds."""
        if self._updated is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._updated) * self._rate)
        self._updated = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)

    async def acquire(self) -> None:
        """Wait for a token. A caller cancelled while waiting has used it: the limit errs to the low side."""
        if (wait := self.reserve(asyncio.get_running_loop().time())) > 0:
            await asyncio.sleep(wait)

    def take(self, now: float) -> bool:
        """Take a token if there is one. `now` is monotonic, in seconds."""
        if self.reserve(now) <= 0:
            return True
        self._tokens += 1.0
        return False
