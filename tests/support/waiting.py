"""One limit for all that a test waits for: long enough for the slowest machine, since it only ends what hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

HANG_SECONDS = 300.0
"""No test may pass or fail by how long something takes."""


@asynccontextmanager
async def no_hang(what: Callable[[], object]) -> AsyncIterator[None]:
    """Fail after HANG_SECONDS with what was waited for, as it then is."""
    try:
        async with asyncio.timeout(HANG_SECONDS) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(f"waited {HANG_SECONDS:.0f} s for {what()}") from None
