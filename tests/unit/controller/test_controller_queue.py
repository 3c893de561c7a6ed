"""The work queue: nothing lost, nothing twice at once, due in order, backed off after failures."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from concordat.controller.queue import CAP, Schedule, WorkQueue, backoff
from tests.support.waiting import no_hang


class ScheduleMachine(RuleBasedStateMachine):
    """Against the obvious model: a dict of due times and a set of keys in work."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule: Schedule[str] = Schedule()
        self.now = 0
        self.due: dict[str, int] = {}
        self.working: set[str] = set()

    @rule(key=st.sampled_from("abc"), delay=st.integers(0, 5))
    def add(self, key: str, delay: int) -> None:
        self.schedule.add(key, self.now + delay)
        self.due[key] = min(self.due.get(key, self.now + delay), self.now + delay)

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        takeable = {k: d for k, d in self.due.items() if d <= self.now and k not in self.working}
        taken = self.schedule.take(self.now)
        if not takeable:
            assert taken is None
            return
        assert taken in takeable
        assert takeable[taken] == min(takeable.values())
        del self.due[taken]
        self.working.add(taken)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.schedule.done(key)
        self.working.remove(key)

    @invariant()
    def next_due_is_that_of_the_model(self) -> None:
        waiting = [d for k, d in self.due.items() if k not in self.working]
        assert self.schedule.next_due() == (min(waiting) if waiting else None)
        assert self.schedule.depth(self.now) == sum(1 for d in waiting if d <= self.now)

    def teardown(self) -> None:
        """Whatever happened, every key that was added and not yet taken is still handed out."""
        for key in self.working:
            self.schedule.done(key)
        left = set()
        while (taken := self.schedule.take(self.now + 100)) is not None:
            left.add(taken)
        assert left == set(self.due)


ScheduleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSchedule = ScheduleMachine.TestCase


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_to_a_cap(failures: int, chance: float) -> None:
    delay = backoff(failures, chance)
    nominal = min(CAP, 2.0 ** min(failures - 1, 16))
    assert nominal * 0.8 <= delay <= nominal * 1.2


def test_no_failure_no_wait() -> None:
    assert backoff(0, 0.5) == 0


def test_failures_count_until_success() -> None:
    schedule: Schedule[str] = Schedule()
    assert [schedule.failed("a"), schedule.failed("a"), schedule.failed("b")] == [1, 2, 1]
    schedule.succeeded("a")
    assert schedule.failed("a") == 1


async def test_every_key_is_worked_on_and_none_twice_at_once() -> None:
    queue: WorkQueue[int] = WorkQueue()
    running: set[int] = set()
    seen: dict[int, int] = dict.fromkeys(range(20), 0)
    everything = asyncio.Event()

    async def work() -> None:
        while True:
            key = await queue.take()
            assert key not in running
            running.add(key)
            if seen[key] == 0:
                queue.add(key)  # An event that arrives while its key is in work must lead to another pass.
            await asyncio.sleep(0)
            seen[key] += 1
            running.remove(key)
            queue.done(key)
            if all(count >= 2 for count in seen.values()):
                everything.set()

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for key in seen:
        queue.add(key)
        queue.add(key)
    async with no_hang(lambda: f"two passes per key, not {seen}"):
        await everything.wait()
    for worker in workers:
        worker.cancel()
    assert set(seen.values()) == {2}
    assert [r for r in await asyncio.gather(*workers, return_exceptions=True) if isinstance(r, AssertionError)] == []


async def test_a_sooner_due_time_wakes_a_waiting_worker() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("late", 3600)
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("late", 0)
    async with no_hang(lambda: "the key"):
        assert await taking == "late"


@pytest.mark.parametrize(("first_free", "depth"), [(True, 1), (False, 0)])
async def test_the_first_conflict_is_retried_at_once(first_free: bool, depth: int) -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert queue.retry("a", first_free=first_free) == 1
    assert queue.depth == depth
    assert queue.retry("a", 7.0, first_free=first_free) == 2
