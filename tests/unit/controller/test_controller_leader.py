"""The election, with time as the test says: who may act, and until when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from concordat.controller.clock import SystemClock
from concordat.controller.errors import Unavailable
from concordat.controller.leader import Leader, LeaderConfig, LeadershipLost
from tests.fakes.api_server import FakeApiServer, FakeCluster


async def with_namespace() -> FakeApiServer:
    server = FakeApiServer()
    await FakeCluster(server).create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "concordat"}})
    return server


async def test_a_late_answer_does_not_eat_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding 28: others count from when the server got the renewal, which is long before its answer came."""
    now = 1000.0
    monkeypatch.setattr("concordat.controller.leader._now", lambda: now)
    server = await with_namespace()
    renewals: list[float] = []

    class Slow(FakeCluster):
        async def _request(self, method: str, *more: Any, **options: Any) -> dict[str, Any]:
            nonlocal now
            if len(renewals) >= 2:
                now += 3
                raise Unavailable("away")
            answer = await super()._request(method, *more, **options)
            if method in ("POST", "PUT"):
                renewals.append(now)
                now += 8  # The answer takes its time.
            return answer

    leader = Leader(Slow(server), LeaderConfig("concordat", "lock", "one", retry=0.001), SystemClock())
    await leader.acquire()
    with pytest.raises(LeadershipLost):
        await leader.hold()
    assert now - renewals[-1] < leader._config.duration


async def test_two_processes_never_share_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding 29."""
    server = await with_namespace()
    monkeypatch.delenv("POD_NAME", raising=False)
    monkeypatch.setattr("os.getpid", lambda: 1)
    one = Leader(FakeCluster(server), LeaderConfig("concordat", "lock"), SystemClock())
    monkeypatch.setattr("os.getpid", lambda: 2)
    two = Leader(FakeCluster(server), LeaderConfig("concordat", "lock"), SystemClock())
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
