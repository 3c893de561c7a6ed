"""Much work on one event loop: bounded concurrency, and a turn for everybody else in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from concordat.controller.errors import ApiError
from concordat.errors import Transient

T = TypeVar("T")

_TURN_SECONDS = 0.01


class Pace:
    """Gives the event loop a turn after every 10 ms of work. Awaited once per item of a long loop."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._since = self._now()

    async def __call__(self) -> None:
        """Let others run if it is time."""
        if self._now() - self._since >= _TURN_SECONDS:
            await asyncio.sleep(0)
            self._since = self._now()


async def gather_bounded(
    items: Iterable[T], act: Callable[[T], Awaitable[object]], limit: int = 16
) -> list[tuple[T, ApiError]]:
    """Act on every item, on at most `limit` at a time; return the items that failed, each with its error.

    One refused item keeps none of the others from being tried. An outage (Transient) is raised after all the others
    were tried; after `limit` of them no further item is begun. Anything else is a bug: it ends the rest at once.
    """
    waiting = iter(items)
    refused: list[tuple[T, ApiError]] = []
    outages: list[Transient] = []

    async def work() -> None:
        for item in waiting:
            try:
                await act(item)
            except Transient as error:
                outages.append(error)
            except ApiError as error:
                refused.append((item, error))
            if len(outages) >= limit:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(work())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    if outages:
        raise outages[0]
    return refused
