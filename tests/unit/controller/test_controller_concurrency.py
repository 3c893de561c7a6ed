"""Many items at once: bounded, none kept from being tried by another, outages told at the end."""

from __future__ import annotations

import asyncio

import pytest

from concordat.controller.concurrency import gather_bounded
from concordat.controller.errors import Forbidden, Unavailable


async def test_at_most_so_many_at_once_and_every_item_once() -> None:
    at_once = [0]
    done: list[int] = []

    async def act(item: int) -> None:
        at_once.append(at_once[-1] + 1)
        await asyncio.sleep(0)
        at_once.append(at_once[-1] - 1)
        done.append(item)

    assert await gather_bounded(range(50), act, limit=4) == []
    assert max(at_once) == 4
    assert sorted(done) == list(range(50))


async def test_one_refused_item_keeps_none_of_the_others() -> None:
    """Section C1: one site that cannot be asked must not keep the others from being asked."""
    done = []

    async def act(item: int) -> None:
        if item % 10 == 3:
            raise Forbidden(f"no {item}")
        done.append(item)

    refused = await gather_bounded(range(30), act)
    assert sorted((item, str(error)) for item, error in refused) == [(3, "no 3"), (13, "no 13"), (23, "no 23")]
    assert len(done) == 27


async def test_an_outage_is_raised_after_the_others_were_tried() -> None:
    done = []

    async def act(item: int) -> None:
        if item == 0:
            raise Unavailable("away")
        done.append(item)

    with pytest.raises(Unavailable, match="away"):
        await gather_bounded(range(20), act, limit=2)
    assert done == list(range(1, 20))


async def test_a_server_that_is_away_is_not_asked_for_every_item() -> None:
    asked = []

    async def act(item: int) -> None:
        asked.append(item)
        await asyncio.sleep(0)
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        await gather_bounded(range(1000), act, limit=4)
    assert len(asked) <= 8


async def test_a_bug_ends_the_rest() -> None:
    async def act(item: int) -> None:
        if item == 1:
            raise KeyError(item)
        await asyncio.Event().wait()

    with pytest.raises(KeyError):
        await gather_bounded(range(5), act)
