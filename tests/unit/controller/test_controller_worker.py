"""What follows from how a reconcile ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from concordat.api import Reason
from concordat.controller.definition import Controller, Key, Result, Watch
from concordat.controller.errors import (
    Conflict,
    Forbidden,
    NotFound,
    Unavailable,
)
from concordat.controller.kinds import JOB
from concordat.controller.worker import Runner
from concordat.errors import Terminal, Transient
from tests.support.presence import present

KEY = ("site-a", "x")
NOW = 1e6
"""A clock that stands still: how busy the machine is shows in no result."""


def runner(outcome: Callable[[], Result]) -> Runner:
    async def reconcile(_: Key) -> Result:
        return outcome()

    run = Runner(Controller("test", {JOB: lambda o: [o]}, reconcile), chance=lambda: 0.5)
    run._now = run.queue._now = lambda: NOW
    return run


def raising(error: Exception) -> Callable[[], Result]:
    def outcome() -> Result:
        raise error

    return outcome


def due_in(run: Runner) -> float | None:
    due = run.queue._schedule.next_due()
    return None if due is None else due - NOW


@pytest.mark.parametrize(
    ("outcome", "result", "delay"),
    [
        (lambda: Result(), "success", None),
        (lambda: Result(30.0), "requeue_after", 30.0),
        (lambda: Result(-5.0), "requeue_after", 0.0),
        (raising(Transient("registry down")), "transient", 1.0),
        (raising(Transient("busy", retry_after=42.0)), "transient", 42.0),
        (raising(Unavailable("GET /x: 429", 429, 17.0)), "transient", 17.0),
        (raising(TimeoutError()), "transient", 1.0),
        (raising(Conflict("PUT /x: 409")), "conflict", 0.0),
        (raising(NotFound("PATCH /x: 404")), "conflict", 0.0),
        (raising(Forbidden("POST /x: 403")), "api_error", 1.0),
        (raising(Terminal(Reason.INVALID, "no")), "terminal", None),
        (raising(KeyError("bug")), "bug", 1.0),
    ],
)
async def test_outcomes(outcome: Callable[[], Result], result: str, delay: float | None) -> None:
    run = runner(outcome)
    assert await run._reconcile(KEY) == result
    assert due_in(run) == delay


async def test_repeated_failures_wait_longer_and_a_success_forgets() -> None:
    failing = [True, True, True, False, True]

    def outcome() -> Result:
        if failing.pop(0):
            raise Transient("registry down")
        return Result()

    run = runner(outcome)
    delays = []
    for _ in range(5):
        await run._reconcile(KEY)
        delays.append(due_in(run))
        run.queue._schedule.take(float("inf"))
        run.queue.done(KEY) if delays[-1] is not None else None
    assert delays == [1.0, 2.0, 4.0, None, 1.0]


async def test_a_hanging_reconcile_is_cancelled() -> None:
    async def reconcile(_: Key) -> Result:
        await asyncio.Event().wait()
        return Result()

    run = Runner(Controller("test", {}, reconcile, timeout=0.01))
    assert await run._reconcile(KEY) == "transient"


async def test_races_are_quiet_until_they_do_not_end(caplog: pytest.LogCaptureFixture) -> None:
    run = runner(raising(Conflict("PUT /x: 409")))
    with caplog.at_level(logging.INFO):
        await run._reconcile(KEY)
        await run._reconcile(KEY)
        assert caplog.records == []
        await run._reconcile(KEY)
        assert len(caplog.records) == 1


async def test_a_bug_is_logged_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    run = runner(raising(KeyError("no such thing")))
    await run._reconcile(KEY)
    assert "no such thing" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_bug_in_a_mapping_does_not_stop_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    async def reconcile(_: Key) -> Result:
        return Result()

    broken = Runner(Controller("test", {JOB: lambda o: o["metadata"]["owner"]}, reconcile))
    broken.notice(JOB, {"metadata": {}}, {"metadata": {"owner": [KEY]}})
    assert broken.queue._schedule.take(float("inf")) == KEY
    assert "no keys for an object" in caplog.text


async def test_overdue_names_the_key() -> None:
    run = runner(lambda: Result())
    assert run.overdue() is None
    run._busy[KEY] = NOW - 1000
    assert run.overdue() == "test site-a/x has been in reconcile for 1000 s\n"


def item(version: str, uid: str = "u", of: tuple[Key, ...] = (KEY,)) -> dict[str, Any]:
    return {"metadata": {"uid": uid, "owner": list(of)}, "status": version}


def watching(**options: Any) -> Runner:
    async def reconcile(_: Key) -> Result:
        return Result()

    watch = Watch(lambda o: o["metadata"]["owner"], lambda o: o["status"].isupper(), **options)
    run = Runner(Controller("test", {JOB: (watch,)}, reconcile))
    run._now = run.queue._now = lambda: NOW
    return run


@pytest.mark.parametrize(
    ("old", "new", "woken"),
    [
        (None, item("a"), True),
        (item("a"), None, True),
        (item("a"), item("b"), False),
        (item("a"), item("B"), True),
        (item("a"), item("b", uid="another"), True),
    ],
)
async def test_a_change_wakes_only_if_it_matters(old: Any, new: Any, woken: bool) -> None:
    """Section C3: the Updates of a round are not reconciled for what the round counts."""
    run = watching()
    run.notice(JOB, old, new)
    assert (due_in(run) is not None) is woken


async def test_many_changes_lead_to_one_pass_per_interval_and_the_first_does_not_wait() -> None:
    run, now = watching(interval=lambda: 1.0), NOW
    run._now = run.queue._now = lambda: now
    passes = 0
    for _ in range(100):
        run.notice(JOB, item("a"), item("B"))
        if (key := run.queue._schedule.take(now)) is not None:
            passes += 1
            run._note_end(key)
            run.queue.done(key)
        now += 0.03
    assert passes == 3

    run.queue._schedule.take(float("inf"))
    run.queue.done(KEY)
    now += 10
    run.notice(JOB, item("a"), item("B"))
    assert present(run.queue._schedule.next_due()) - now == pytest.approx(run.controller.debounce)


async def test_idle_passes_let_others_have_their_turn() -> None:
    """Finding 30: 20,000 keys with nothing to do took one second in one go."""
    done, turns = 0, [0]
    ended = asyncio.Event()

    async def other() -> None:
        while True:
            turns.append(done)
            await asyncio.sleep(0)

    async def reconcile(_: Key) -> Result:
        nonlocal done
        done += 1
        if done == 100:
            ended.set()
        return Result()

    run = Runner(Controller("test", {}, reconcile, workers=1))
    for number in range(100):
        run.queue.add(("site-a", str(number)))
    tasks = [asyncio.create_task(part) for part in (other(), *run.workers())]
    await ended.wait()
    for task in tasks:
        task.cancel()
    assert max(after - before for before, after in itertools.pairwise(turns)) == 1
