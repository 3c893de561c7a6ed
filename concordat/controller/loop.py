"""How long the event loop was blocked: a reconcile that computes without waiting delays all others, and the Lease."""

from __future__ import annotations

import asyncio

from concordat.controller import metrics

_TICK_SECONDS = 0.02


async def watch_blocks() -> None:
    """Show the longest block of the event loop so far, in seconds. Never returns.

    A block is how much later than it asked this coroutine is woken, so a process that got no CPU counts as blocked too.
    """
    now, longest = asyncio.get_running_loop().time, 0.0
    while True:
        due = now() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        if (block := now() - due) > longest:
            longest = block
            metrics.LOOP_BLOCK.set(longest)
