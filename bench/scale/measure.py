"""One round of N sites, measured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.federation import audit
from bench.federation.audit import Write
from bench.federation.nodes import Ran, Times
from bench.federation.operator import cpu_seconds
from bench.federation.world import EVALUATOR, World

ROUND = "measured"
_OUTSIDE = ("Ready", "adopted by all")
"""Stages before the round's creation and after its end."""
_DEADLINES = {"consentSeconds": 900, "submissionSeconds": 3600, "evaluationSeconds": 3600}


@dataclass
class Measured:
    """One round; times in seconds, memory in MiB."""

    sites: int
    stages: dict[str, float | None] = field(default_factory=dict)
    """Stage to the seconds since the stage before; None: not reached in the time given."""
    total: float = 0.0
    """From the round's creation until every site uses its release."""
    own: float = 0.0
    """The part of it that the longest Jobs of the sites take, one after the other."""
    ended: float = 0.0
    """From the round's creation until its end, the release; adoption, which is each site's own affair, comes after."""
    own_until_end: float = 0.0
    """The sites' own part of that."""
    aggregator: float = 0.0
    writes: dict[str, int] = field(default_factory=dict)
    """"who verb resource" to how many, between the round's creation and its end."""
    writes_per_site: float = 0.0
    registry: dict[str, int] = field(default_factory=dict)
    reconciles: dict[str, float] = field(default_factory=dict)
    operator_cpu: float = 0.0
    """The round's part, without start and enrolment."""
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the round by process; "bench" plays all agents and nodes."""
    peak_mib: float = 0.0
    longest_block: float | None = None
    blocks: dict[str, float] = field(default_factory=dict)
    """Stage to the longest block of the operator's event loop until its end."""
    etcd_mib: float = 0.0
    exits: int = 0
    """Number of times the operator ended by itself."""


async def measure(sites: int, times: Times, limit: float, say: Callable[[str], None]) -> Measured:
    """Run one round; `limit` is the most seconds to wait for each stage."""
    measured = Measured(sites)
    async with World(sites, times, favoured=True) as world:
        say(f"{sites} sites are installed")
        stages = Stages(world, measured, limit, say)
        await stages.reach("Ready", lambda: len(world.progress.ready) > sites)
        offsets = (world.control_plane.audit_log.stat().st_size, world.registry.log.stat().st_size)
        before, cpu, reconciles = time.monotonic(), _cpu(world), await world.operator.metrics()
        await world.start_round(ROUND, deadlines=_DEADLINES)
        await stages.round()
        measured.total = time.monotonic() - before
        measured.cpu = {name: seconds - cpu[name] for name, seconds in _cpu(world).items()}
        measured.operator_cpu = measured.cpu["operator"]
        measured.peak_mib = world.operator.usage().peak_mib
        after = await world.operator.metrics()
        measured.longest_block = after.pop("block", None)
        measured.reconciles = {
            name: count - reconciles.get(name, 0) for name, count in after.items() if count != reconciles.get(name, 0)
        }
        found, _ = audit.writes(world.control_plane.audit_log, offsets[0], world.users)
        measured.writes = _by_name(found)
        measured.writes_per_site = audit.per_site(found, sites)
        measured.registry = dict(world.registry.requests(offsets[1])[0])
        measured.exits = world.operator.exits
        measured.own, measured.own_until_end = own_seconds(world.nodes.ran)
        measured.ended = sum(s or 0.0 for name, s in measured.stages.items() if name not in _OUTSIDE)
        measured.aggregator = sum(r.ended - r.started for r in world.nodes.ran if r.kind == "aggregator" and r.ended)
        measured.etcd_mib = int((await world.control_plane.etcd("maintenance/status"))["dbSize"]) / 2**20
    return measured


class Stages:
    """The stages of a round, as they are reached."""

    def __init__(self, world: World, measured: Measured, limit: float, say: Callable[[str], None]) -> None:
        self._world, self._measured, self._limit, self._say = world, measured, limit, say

    async def reach(self, stage: str, reached: Callable[[], bool]) -> None:
        """Wait for a stage and note how long it took."""
        seconds: float | None
        try:
            seconds = await self._world.progress.until(reached, self._limit)
        except TimeoutError:
            seconds = None
        self._measured.stages[stage] = seconds
        block = (await self._world.operator.metrics()).get("block") if self._world.operator.running else None
        if block is not None:
            self._measured.blocks[stage] = block
        self._say(f"{stage}: " + (f"{seconds:.1f} s" if seconds is not None else f"not within {self._limit:.0f} s"))

    async def round(self) -> None:
        """Follow the round to its end."""
        progress, sites = self._world.progress, self._measured.sites

        def by_all(group: dict[str, set[str]]) -> Callable[[], bool]:
            return lambda: len(group.get(ROUND, ())) == sites or judged()

        def judged() -> bool:
            found = progress.rounds.get(ROUND)
            return (found is not None and found.status.aggregate is not None) or progress.ended(ROUND)

        def evaluated() -> bool:
            return (EVALUATOR, progress.release(ROUND)) in progress.decided or progress.ended(ROUND)

        await self.reach("asked", by_all(progress.asked))
        await self.reach("consented", by_all(progress.consented))
        await self.reach("submitted", by_all(progress.submitted))
        await self.reach("judged", judged)
        await self.reach("evaluated", evaluated)
        await self.reach("released", lambda: progress.ended(ROUND))
        if progress.released(ROUND):
            await self.reach("adopted by all", lambda: progress.adopted(ROUND) == sites)
        else:
            self._say(f"the round led to no release: {progress.why(ROUND)}")


def own_seconds(ran: list[Ran]) -> tuple[float, float]:
    """Return what the sites' own Jobs take until all use the release, and until the round ends.

    That is the longest training, the evaluation, and for the first the longest validation.
    """
    train = [r.own for r in ran if r.kind == "trainer"]
    judge = [r.own for r in ran if r.kind == "evaluator" and r.namespace == EVALUATOR]
    adopt = [r.own for r in ran if r.kind == "evaluator" and r.namespace != EVALUATOR]
    until_end = max(train, default=0.0) + max(judge, default=0.0)
    return until_end + max(adopt, default=0.0), until_end


def _cpu(world: World) -> dict[str, float]:
    pids = world.control_plane.pids() | {"registry": world.registry.pid, "operator": world.operator.process.pid}
    return {name: cpu_seconds(pid) for name, pid in pids.items()} | {"bench": time.process_time()}


def _by_name(found: Counter[Write]) -> dict[str, int]:
    return {f"{write.who} {write.verb} {write.resource}": n for write, n in sorted(found.items(), key=str)}
