"""Finding 16: deadlines are judged by the API server's time, and the heartbeat is what asks for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from concordat.api import Site, Update
from concordat.controller import Cache, FixedClock
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.hub_clock import HubClock, write_time
from concordat_agent.site.heartbeat import Heartbeat
from concordat_agent.updates.reconcile import UpdateReconciler

HUB_TIME = datetime(2026, 11, 28, 12, tzinfo=UTC)
KEY = ("site-a", "site-a")


class Elapsed:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class ApiServer:
    """Answers writes with its own time."""

    def __init__(self, elapsed: Elapsed) -> None:
        self._elapsed, self._start = elapsed, elapsed.seconds
        self.written: list[dict[str, Any]] = []

    def now(self) -> datetime:
        return HUB_TIME + timedelta(seconds=self._elapsed.seconds - self._start)

    async def apply(self, obj: dict[str, Any], manager: str) -> dict[str, Any]:
        self.written.append(obj)
        at = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        older = {"manager": "kubectl", "time": "2037-01-01T00:00:00Z"}
        return {**obj, "metadata": {**obj["metadata"], "managedFields": [older, {"manager": manager, "time": at}]}}


def agent(machine: FixedClock, elapsed: Elapsed, server: ApiServer) -> Agent:
    """All of an agent that a heartbeat needs."""
    cache = Cache()
    cache.watch([Site, Update])
    spec = {
        "federations": [{"name": "digits", "dataClaim": "d"}],
        "workspaceClaim": "w",
        "judgingImage": "x@sha256:" + "1" * 64,
    }
    metadata = {"name": "site-a", "namespace": "site-a", "uid": "1", "resourceVersion": "1"}
    cache.feed({"apiVersion": "concordat.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": spec})
    parts = SimpleNamespace(site="site-a", cluster=server, cache=cache, clock=HubClock(machine, elapsed))
    return cast(Agent, parts)


@pytest.mark.parametrize("off", [-3600, -120, 0, 120, 3600])
async def test_the_hubs_time_is_known_from_the_heartbeat_whatever_the_machines_clock_says(off: int) -> None:
    machine, elapsed = FixedClock(HUB_TIME + timedelta(seconds=off)), Elapsed()
    one = agent(machine, elapsed, ApiServer(elapsed))
    assert not one.clock.known
    result = await Heartbeat(one)(KEY)
    assert result.requeue_after == 30
    assert one.clock.known
    assert one.clock.now() == HUB_TIME


async def test_a_clock_that_is_set_anew_moves_no_deadline() -> None:
    machine, elapsed = FixedClock(HUB_TIME), Elapsed()
    one = agent(machine, elapsed, ApiServer(elapsed))
    await Heartbeat(one)(KEY)
    for jump in (120, -240):
        machine.advance(jump)
        elapsed.seconds += 10
    assert one.clock.now() == HUB_TIME + timedelta(seconds=20)


async def test_the_heartbeat_is_a_timer_that_events_do_not_hasten() -> None:
    """Section B of the review."""
    machine, elapsed = FixedClock(HUB_TIME), Elapsed()
    server = ApiServer(elapsed)
    heartbeat = Heartbeat(agent(machine, elapsed, server))
    await heartbeat(KEY)
    elapsed.seconds += 5
    machine.advance(-120)
    result = await heartbeat(KEY)
    assert (len(server.written), result.requeue_after) == (1, 25)
    elapsed.seconds += 25
    await heartbeat(KEY)
    assert len(server.written) == 2
    # The Lease shows the machine's own clock: so the hub can see how far it is off.
    assert server.written[1]["spec"]["renewTime"] == "2026-11-28T11:58:00.000000Z"


async def test_no_deadline_is_judged_before_the_hubs_time_is_known() -> None:
    machine, elapsed = FixedClock(HUB_TIME + timedelta(hours=5)), Elapsed()
    one = agent(machine, elapsed, ApiServer(elapsed))
    reference = {"repository": "digits/adapters", "digest": "sha256:" + "a" * 64}
    spec = {
        "federation": "digits",
        "roundRef": {"name": "r1", "namespace": "concordat", "uid": "0123abcd"},
        "site": "site-a",
        "contract": reference,
        "contractDigest": "sha256:" + "c" * 64,
        "consentDeadline": HUB_TIME + timedelta(minutes=5),
        "submissionDeadline": HUB_TIME + timedelta(hours=1),
    }
    metadata = {"name": "r1-0123abcd", "namespace": "site-a", "uid": "2", "resourceVersion": "2"}
    update = {"apiVersion": "concordat.dev/v1alpha1", "kind": "Update", "metadata": metadata, "spec": spec}
    one.cache.feed(Update.model_validate(update).model_dump(mode="json", by_alias=True, exclude_none=True))
    result = await UpdateReconciler(one)(("site-a", "r1-0123abcd"))
    assert result.requeue_after == 1


def test_the_time_of_a_write_is_its_managers() -> None:
    entries = [
        {"manager": FIELD_MANAGER, "time": "2026-11-28T12:00:00Z"},
        {"manager": "another", "time": "2026-11-28T13:00:00Z"},
        {"manager": FIELD_MANAGER},
    ]
    assert write_time({"metadata": {"managedFields": entries}}, FIELD_MANAGER) == HUB_TIME
    assert write_time({"metadata": {}}, FIELD_MANAGER) is None
