"""The soak itself: a round, a fault, a look; again and again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bench.federation.nodes import Times
from bench.federation.world import World
from bench.soak.faults import FAULTS, heal
from bench.soak.look import Remembered, sample, wrong
from concordat.api import FederationRound, Site
from concordat.controller import ApiError, Conflict

_TIMES = Times((0.1, 0.8), (0.1, 0.3))
_DEADLINES = {"consentSeconds": 10, "submissionSeconds": 45, "evaluationSeconds": 45}
_ROUND_SECONDS = 240.0
_STAGES = ("asked", "consented", "submitted", "copies")
_SAMPLE_EVERY = 10


@dataclass
class Soaked:
    """The findings of a soak."""

    ended: Counter[str] = field(default_factory=Counter)
    """Number of rounds by their end, the reason of Ready."""
    by_fault: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Invariants that did not hold, and when."""
    samples: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """What may grow: round and value, of every tenth round after the last kill of the operator."""
    champions: dict[str, int] = field(default_factory=dict)
    """By site, the sequence that it used after the last round."""


async def soak(
    rounds: int, sites: int, seed: int, say: Callable[[str], None], faults: Sequence[str] = tuple(FAULTS)
) -> Soaked:
    """Run the rounds, or as many as there is time for until Ctrl-C.

    The operator is killed in the first fifth only: memory is measured in one process.
    """
    found, chance = Soaked(), random.Random(seed)  # noqa: S311 - which fault comes next
    async with World(sites, _TIMES, seed) as world, Remembered(world.registry.url) as registry:
        await world.progress.until(lambda: len(world.progress.ready) > sites, _ROUND_SECONDS)
        try:
            for number in range(rounds):
                allowed = [f for f in faults if f != "kill operator" or number < max(rounds // 5, len(faults))]
                fault = allowed[number] if number < len(allowed) else chance.choice(allowed)
                say(await _watched(world, registry, found, f"soak-{number:04d}", fault, chance))
                if number % _SAMPLE_EVERY == _SAMPLE_EVERY - 1 and number >= rounds // 5:
                    for what, value in (await sample(world)).items():
                        found.samples.setdefault(what, []).append((number + 1, value))
        except asyncio.CancelledError:
            say("stopped; what follows is of the rounds before")
    return found


async def _watched(
    world: World, registry: Remembered, found: Soaked, name: str, fault: str, chance: random.Random
) -> str:
    """Run one round, look at what must hold, and return both in a line."""
    started = time.monotonic()
    problem = await _round(world, name, fault, chance)
    ran = time.monotonic() - started
    ended = world.progress.why(name)
    found.ended[ended.partition(":")[0]] += 1
    found.by_fault[fault] += 1
    if problem is not None:
        found.wrong.append(f"{name} ({fault}): {problem}: {ended}")
        await world.admin.delete(FederationRound, "concordat", name)
    found.wrong += [f"{name} ({fault}): {sentence}" for sentence in await wrong(world, registry)]
    for site in world.cache.list(Site):
        used, before = site.status.champion, found.champions.get(site.metadata.name, 0)
        found.champions[site.metadata.name] = used.sequence if used is not None else 0
        if found.champions[site.metadata.name] < before:
            found.wrong.append(f"{name} ({fault}): {site.metadata.name} went back from sequence {before}")
    world.nodes.ran.clear()
    looked = time.monotonic() - started - ran
    times = f"{ran:.1f} s, looked at for {looked:.1f} s"
    return f"{name}: {fault}: {times}: {ended[:100]}" + ("" if problem is None else f" ({problem})")


async def _round(world: World, name: str, fault: str, chance: random.Random) -> str | None:
    """Run one round with a fault at a random moment; returns what kept it from its end."""
    site, stage = chance.choice(world.names), chance.choice(_STAGES)
    try:
        async with asyncio.timeout(_ROUND_SECONDS):
            await world.start_round(name, deadlines=_DEADLINES)
            if fault in ("silent site", "garbage"):
                await FAULTS[fault](world, name, site)
            else:
                await world.progress.until(lambda: _reached(world, name, stage), _ROUND_SECONDS)
                await _until_done(lambda: FAULTS[fault](world, name, site))
            await world.progress.until(lambda: world.progress.ended(name), _ROUND_SECONDS)
            heal(world)
            if world.progress.released(name):
                await world.progress.until(lambda: _settled(world, name), _ROUND_SECONDS)
    except TimeoutError:
        return f"not over after {_ROUND_SECONDS:.0f} s (fault at {stage})"
    finally:
        heal(world)
    return None


def _reached(world: World, name: str, stage: str) -> bool:
    progress = world.progress
    if progress.ended(name):
        return True
    if stage == "copies":
        return bool(progress.copies.get(progress.release(name) or ""))
    return bool(getattr(progress, stage).get(name))


def _settled(world: World, name: str) -> bool:
    """Return whether every site has answered the release, by adopting it or otherwise."""
    release, progress = world.progress.release(name), world.progress
    return all(progress.champions.get(site) == release or (site, release) in progress.answered for site in world.names)


async def _until_done(act: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await act()
        except Conflict:
            return
        except ApiError:
            await asyncio.sleep(0.5)
        else:
            return
