"""Every request of the operator fails once, in every way: the round ends as if none had."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from concordat.api import ConditionType
from concordat.controller import ApiError, Conflict, Unavailable
from concordat.errors import Transient
from tests.scenarios.federation import Federation
from tests.support.presence import condition

FAULTS: dict[str, Callable[[], Exception]] = {
    "409": lambda: Conflict("409 Conflict: the object has been modified", 409),
    "410": lambda: ApiError("410 Gone: too old resource version", 410),
    "429": lambda: Unavailable("429 TooManyRequests", 429, 1.0),
    "500": lambda: Unavailable("500 InternalError", 500),
    "timeout": lambda: Unavailable("the API server cannot be reached: TimeoutError()"),
}


def once(make: Callable[[], Exception]) -> Callable[[str, str], Exception | None]:
    """Fail each kind of request once."""
    seen: set[str] = set()

    def fail(method: str, path: str) -> Exception | None:
        request = json.dumps([method, path])
        if request in seen:
            return None
        seen.add(request)
        return make()

    return fail


async def released(federation: Federation, *, launched: int = 10) -> None:
    """A whole round ended well, and what must always hold does."""
    await federation.settle(300, still=8)
    found = condition(federation.found("r1").status.conditions, ConditionType.SUCCEEDED)
    assert (found.status.value, found.reason) == ("True", "Released"), found.message
    name = federation.released("r1")
    assert set(federation.copies(name)) == {"hub", "evaluator", "site-a", "site-b", "site-c", "site-d"}
    assert federation.found("r1").status.summary == "4/4 verified"
    assert {await federation.champion(s) for s in ("site-a", "site-b", "site-c", "site-d")} == {name}
    assert len(federation.launched) == len(set(federation.launched)) == launched
    assert await federation.broken() == []


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_request_of_the_operator_fails_once(federation: Federation, fault: str, moment: str) -> None:
    federation.tolerated = (ApiError, Transient)
    setattr(federation.cluster, moment, once(FAULTS[fault]))
    await federation.round("r1")
    await released(federation)


async def test_the_registry_is_away_now_and_then(federation: Federation) -> None:
    federation.tolerated = (ApiError, Transient)
    federation.registry.chance = random.Random(3)  # noqa: S311 - a test
    await federation.round("r1")
    for _ in range(60):
        await federation.turn()
    federation.registry.chance = None
    await released(federation)


@pytest.mark.parametrize("seed", range(4))
async def test_watch_events_are_lost_late_doubled_and_out_of_order(federation: Federation, seed: int) -> None:
    federation.tolerated = (ApiError, Transient)
    federation.watch_badly(random.Random(seed))  # noqa: S311 - a test
    await federation.round("r1")
    for _ in range(60):
        await federation.turn()
    federation.watch_badly(None)
    await released(federation)


async def test_two_operators_at_once_make_one_aggregate_and_one_release(federation: Federation) -> None:
    """A leader that was stopped past its Lease goes on beside the new one, with what it knew."""
    other = federation.second_operator()
    await federation.round("r1")
    for _ in range(40):
        await federation.turn()
        await federation.step(other)
    await released(federation)


@pytest.mark.parametrize("skew", [-120, 120])
async def test_the_clock_of_a_site_is_two_minutes_off(federation: Federation, skew: int) -> None:
    federation.skew("site-b", skew)
    await federation.settle()
    await federation.round("r1")
    await released(federation)
