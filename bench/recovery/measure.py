"""Kill the operator where work is due, and see when it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from bench.federation import audit
from bench.federation.nodes import Ran
from bench.federation.operator import HUB, Operator
from bench.federation.world import EVALUATOR, World
from concordat.controller import LEASE

LIMIT_SECONDS = 300.0
_IN_FLIGHT = timedelta(seconds=0.2)
"""A write that the API server had received when its sender died is nobody's recovery."""
_LOOK_SECONDS = 0.05
_LEASE = "concordat-operator"


@dataclass
class Recovered:
    """The measured times, in seconds."""

    crash: dict[str, list[float]] = field(default_factory=dict)
    """Moment of the kill to the seconds until the next useful write."""
    failover: list[float] = field(default_factory=list)
    """From the leader's end to the standby's first useful write."""
    lease: list[float] = field(default_factory=list)
    """From the leader's end until the standby holds the Lease."""
    idle: dict[str, list[float]] = field(default_factory=dict)
    """Step to the seconds in which no Job of the round ran."""
    aggregates: list[int] = field(default_factory=list)
    """Aggregator Jobs of each round whose leader was stopped past its Lease; one is right."""


def moments(world: World, round_: str) -> dict[str, Callable[[], bool]]:
    """Return when to kill, in the order in which a round gets there. In each of them the operator has work to do."""
    progress, ran = world.progress, world.nodes.ran
    before = len(ran)

    def ended(kind: str) -> Callable[[], bool]:
        return lambda: any(job.kind == kind and job.ended for job in ran[before:])

    return {
        "while it asks the sites": lambda: bool(progress.asked.get(round_)),
        "when the first site consents": lambda: bool(progress.consented.get(round_)),
        "when the first training ends": ended("trainer"),
        "when the aggregator ends": ended("aggregator"),
        "when the evaluator has decided": lambda: (EVALUATOR, progress.release(round_)) in progress.decided,
        "while it offers the release": lambda: len(progress.copies.get(progress.release(round_) or "", ())) > 2,
    }


async def crashes(world: World, round_: str, found: Recovered) -> None:
    """Run one round in which the operator is killed and restarted at every moment."""
    await world.start_round(round_)
    for moment, reached in moments(world, round_).items():
        await world.progress.until(reached, LIMIT_SECONDS)
        offset = world.control_plane.audit_log.stat().st_size
        at = datetime.now(UTC)
        world.operator.kill()
        world.operator.start()
        found.crash.setdefault(moment, []).append(await _until_useful(world, offset, at))
    await _finish(world, round_)


async def failover(world: World, round_: str, found: Recovered, standby: Operator) -> Operator:
    """Run one round in which the leader is killed while it asks; returns the replica that stands by afterwards."""
    leader = world.operator
    await world.start_round(round_)
    await world.progress.until(lambda: bool(world.progress.asked.get(round_)), LIMIT_SECONDS)
    offset = world.control_plane.audit_log.stat().st_size
    at = datetime.now(UTC)
    leader.kill()
    found.lease.append(await _until_held(world, standby, at))
    found.failover.append(await _until_useful(world, offset, at))
    world.operator = standby
    leader.start()
    await _finish(world, round_)
    return leader


async def standstill(world: World, round_: str, found: Recovered, standby: Operator) -> Operator:
    """Run one round in which the leader stands still past its Lease, just when the aggregate is due."""
    leader, before = world.operator, len(world.nodes.ran)
    await world.start_round(round_)
    sites = len(world.names)
    await world.progress.until(lambda: len(world.progress.submitted.get(round_, ())) == sites, LIMIT_SECONDS)
    leader.pause()
    await _until_held(world, standby, datetime.now(UTC))
    leader.resume()
    world.operator = standby
    await _finish(world, round_)
    found.aggregates.append(sum(1 for job in world.nodes.ran[before:] if job.kind == "aggregator"))
    leader.kill()
    leader.start()
    return leader


async def idle(world: World, round_: str, found: Recovered) -> None:
    """Run one round undisturbed, and note when none of its Jobs ran."""
    before, started = len(world.nodes.ran), time.monotonic()
    await world.start_round(round_)
    await _finish(world, round_)
    for step, seconds in gaps(world.nodes.ran[before:], started, time.monotonic()).items():
        found.idle.setdefault(step, []).append(seconds)


def gaps(ran: list[Ran], started: float, ended: float) -> dict[str, float]:
    """Return the seconds between one kind of Job and the next, by step; `ended` is when every site had adopted."""
    groups = {
        "train": [job for job in ran if job.kind == "trainer"],
        "aggregate": [job for job in ran if job.kind == "aggregator"],
        "evaluate": [job for job in ran if job.kind == "evaluator" and job.namespace == EVALUATOR],
        "adopt": [job for job in ran if job.kind == "evaluator" and job.namespace != EVALUATOR],
    }
    begins = {name: min(job.started for job in jobs) for name, jobs in groups.items()}
    ends = {name: max(job.ended or ended for job in jobs) for name, jobs in groups.items()}
    return {
        "select, ask, consent, stage": begins["train"] - started,
        "submit, collect, request": begins["aggregate"] - ends["train"],
        "confirm, propose, stage": begins["evaluate"] - ends["aggregate"],
        "decide, release, offer, stage": begins["adopt"] - ends["evaluate"],
        "adopt": ended - ends["adopt"],
    }


async def _finish(world: World, round_: str) -> None:
    """Wait until every site uses the round's release."""
    await world.progress.until(lambda: world.progress.ended(round_), LIMIT_SECONDS)
    if not world.progress.released(round_):
        raise RuntimeError(f"{round_} led to no release: {world.progress.why(round_)}")
    await world.progress.until(lambda: world.progress.adopted(round_) == len(world.names), LIMIT_SECONDS)


async def _until_useful(world: World, offset: int, at: datetime) -> float:
    log = world.control_plane.audit_log
    async with asyncio.timeout(LIMIT_SECONDS):
        while (  # noqa: ASYNC110 - what changes is a file
            written := audit.first_useful(log, offset, world.users, at + _IN_FLIGHT)
        ) is None:
            await asyncio.sleep(_LOOK_SECONDS)
    return (written - at).total_seconds()


async def _until_held(world: World, replica: Operator, at: datetime) -> float:
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            lease = await world.admin.get(LEASE, HUB, _LEASE)
            if lease["spec"]["holderIdentity"] == replica.name:
                return (datetime.now(UTC) - at).total_seconds()
            await asyncio.sleep(_LOOK_SECONDS)
