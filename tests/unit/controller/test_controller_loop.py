"""What is said of a blocked event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from prometheus_client import REGISTRY

from concordat.controller.loop import watch_blocks
from tests.support.waiting import no_hang

BLOCK_SECONDS = 0.2


async def test_the_longest_block_of_the_event_loop_is_shown() -> None:
    """Finding section C: blocks of 11 s were found by a simulation and shown nowhere."""
    watching = asyncio.create_task(watch_blocks())
    await asyncio.sleep(0)
    until = time.monotonic() + BLOCK_SECONDS
    while time.monotonic() < until:  # Computes instead of waiting.
        pass
    shown = None
    async with no_hang(lambda: "the block is not shown"):
        while not shown:
            await asyncio.sleep(0)
            shown = REGISTRY.get_sample_value("concordat_event_loop_longest_block_seconds")
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert shown > BLOCK_SECONDS / 2
