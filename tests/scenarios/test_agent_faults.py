"""Agents that are killed at any write, whose volume is full, whose registry is away, or that are slow."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from concordat.api import Condition, Release, Update
from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryUnavailable
from concordat.artifacts.http import Refused
from concordat.protocol.locations import decisions_repository, site_repository
from concordat_agent.updates import reconcile as updates
from tests.scenarios.agent_faults import Fate, interfere, restart
from tests.scenarios.faults import Killed
from tests.scenarios.federation import Federation
from tests.scenarios.node import IMAGE
from tests.scenarios.test_faults import released
from tests.scenarios.view import EVALUATOR
from tests.support.policies import policy
from tests.support.presence import condition

SITES = ("site-a", "site-b", "site-c", "site-d")
ALL = (EVALUATOR, *SITES)


def shown(federation: Federation) -> Iterator[Condition]:
    """The conditions of all Updates and of all Releases."""
    for update in federation.cache.list(Update):
        yield from update.status.conditions
    for release in federation.cache.list(Release):
        yield from release.status.conditions


async def asked(federation: Federation) -> None:
    """Apply a round and let only the operator act, until it has asked the sites."""
    await federation.round("r1")
    await federation.sync()
    while len(federation.updates("r1")) < len(SITES):
        await federation.operate()
        await federation.sync()


async def once_each(federation: Federation) -> None:
    """Each site signed one consent, sent one update with its statement, and signed one decision."""
    uid = federation.found("r1").metadata.uid
    for short in ALL:
        decisions = decisions_repository("digits", federation.name(short))
        assert len(await federation.registry.artifacts(decisions)) == 1, short
    for short in SITES:
        own = site_repository("digits", uid, federation.name(short))
        assert len(await federation.registry.artifacts(own)) == 3, short


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killing_the_agents_at_every_write_changes_nothing(federation: Federation, moment: str) -> None:
    """Section "Killed everywhere" of the review: API, registry and volumes."""
    push, disk, api, deaths = Fate(moment, Killed), Fate(moment, Killed), Fate(moment, Killed), 0

    def start() -> None:
        for short in ALL:
            restart(federation, short, push=push, disk=disk)

    start()
    interfere(federation, api)
    await federation.round("r1")
    while True:
        try:
            await federation.settle(300, still=3)
        except Killed:
            deaths += 1
            await federation.sync()
            start()
        else:
            break
    await released(federation)
    await once_each(federation)
    assert len(push.met) == 3 * len(SITES) + len(ALL)
    assert sum(" adopt " in write for write in disk.met) == len(ALL)
    assert deaths == len(push.met) + len(disk.met) + len(api.met) > 80


async def test_a_full_volume_is_shown_and_heals_by_itself(federation: Federation) -> None:
    """Finding 21: each write to a volume fails once for want of space."""
    disk = Fate("before", lambda: OSError(errno.ENOSPC, "No space left on device", "/workspace/x"))
    for short in ALL:
        restart(federation, short, disk=disk)
    await federation.round("r1")
    seen = set()
    for _ in range(60):
        await federation.turn()
        seen |= {c.type for c in shown(federation) if c.reason == "DiskFull" and "Enlarge" in c.message}
        assert not any(slot for slot in federation.found("r1").status.dropped_sites)
    assert seen == {"Consented", "Staged", "Submitted", "Adopted", "Evaluated"}
    await released(federation)
    await once_each(federation)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RegistryUnavailable("the registry does not answer"), "RegistryUnavailable"),
        (Refused("GET /v2/digits", 403, "denied"), "RegistryRefused"),
        (Refused("GET /v2/digits", 405, "not allowed"), "RegistryRefused"),
    ],
)
async def test_registry_trouble_is_shown_retried_and_costs_nothing(
    federation: Federation, error: Exception, reason: str
) -> None:
    """Finding 21: at each step of all agents in turn."""
    registries = [restart(federation, short) for short in ALL]
    await federation.round("r1")
    seen = set()
    for turn in range(80):
        for registry in registries:
            registry.error = error if turn % 4 else None
        await federation.turn()
        seen |= {c.type for c in shown(federation) if c.reason == reason and "tried again" in c.message}
        assert not any(slot for slot in federation.found("r1").status.dropped_sites)
    for registry in registries:
        registry.error = None
    assert seen > {"Consented", "Submitted", "Evaluated"}
    await released(federation)
    await once_each(federation)


async def test_registry_trouble_until_the_deadline_is_the_reason_why_the_site_is_out(federation: Federation) -> None:
    """Finding 21: the hub says why, not only that no answer came."""
    restart(federation, "site-d").error = RegistryUnavailable("the registry does not answer")
    await federation.round("r1")
    await federation.settle()
    update = federation.updates("r1")["site-d"]
    consented = condition(update.status.conditions, "Consented")
    assert (consented.is_false, consented.reason) == (True, "RegistryUnavailable")
    assert federation.found("r1").status.dropped_sites == []
    federation.clock.advance(301)
    await federation.settle()
    consented = condition(federation.updates("r1")["site-d"].status.conditions, "Consented")
    assert consented.reason == "DeadlineExceeded"
    assert "RegistryUnavailable: the registry does not answer" in consented.message
    (gone,) = federation.found("r1").status.dropped_sites
    assert gone.site == federation.name("site-d")
    assert "the registry does not answer" in gone.message
    assert condition(federation.found("r1").status.conditions, "Succeeded").is_true


async def test_an_agent_writes_seven_times_in_a_round(federation: Federation) -> None:
    """Section B of the review: consent and staging in one write, and no Lease for an Update or a Release.

    Two of them let a Job run.
    """
    writes: list[str] = []

    def record(moment: str, write: str) -> None:
        path = json.loads(write)[0]
        if moment == "after" and "/events" not in path and federation.name("site-a") in path:
            writes.append(path.split("/", 6)[-1].replace(federation.name("site-a"), "site"))

    restart(federation, "site-a")
    interfere(federation, record)
    await federation.turn()
    assert [write for write in writes if "lease" in write] == ["leases/concordat-agent"]
    writes.clear()
    await federation.round("r1")
    await federation.settle()
    name, update = federation.released("r1"), federation.updates("r1")["site-a"].metadata.name
    assert sorted(writes) == sorted(
        [f"updates/{update}/status", f"releases/{name}/status"] * 2
        + [f"jobs/{update}", f"jobs/{name}", "sites/site/status"]
    )


async def test_a_slow_download_does_not_delay_consent(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_QUICK_SECONDS", 0.01)
    registry = restart(federation, "site-a")
    quick = registry.pull

    async def never(ref: ArtifactRef, target: Path) -> Path:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(registry, "pull", never)
    await asked(federation)
    (update_controller,) = [c for c in federation.agents[federation.name("site-a")] if c.name == "update"]
    key = federation.updates("r1")["site-a"].key
    await update_controller.reconcile(key)
    status = federation.updates("r1")["site-a"].status
    assert condition(status.conditions, "Consented").is_true
    assert len(status.conditions) == 1
    monkeypatch.setattr(registry, "pull", quick)
    await released(federation)


async def test_a_decision_is_taken_once_whatever_the_policy_says_later(federation: Federation) -> None:
    """Finding 41: killed after it pushed its decision, the agent comes back with another policy."""
    push = Fate("after", Killed)
    await federation.round("r1")
    restart(federation, "site-a", push=push)
    never = policy(IMAGE, adoption={"mode": "Never"})
    for _ in range(4):
        try:
            await federation.settle()
        except Killed:
            await federation.sync()
            decided = any("decisions" in write for write in push.met)
            restart(federation, "site-a", push=push, policy=never if decided else None)
    await released(federation)
    await once_each(federation)
    adopted = condition(federation.copies(federation.released("r1"))["site-a"].status.conditions, "Adopted")
    assert (adopted.is_true, adopted.reason) == (True, "Adopted")


async def test_folders_of_objects_that_the_cache_dropped_are_kept(federation: Federation) -> None:
    """Finding 38: an agent older than the CRDs does not see an object, whose Job may run."""
    await asked(federation)
    await federation.turn()
    site = federation.name("site-a")
    update = federation.updates("r1")["site-a"]
    workspace = federation.workspaces[site]
    workspace.prepare("gone")
    raw = await federation.admin.get(Update, *update.key)
    federation.cache.remove(raw)
    (tidy,) = [c for c in federation.agents[site] if c.name == "site"]
    await tidy.reconcile((site, site))
    assert workspace.jobs() == {update.metadata.name}


async def test_the_heartbeat_depends_on_nothing_else(federation: Federation) -> None:
    """Finding 38: it has a worker of its own, which neither tidying nor an Update or a Release can hold up."""
    for controllers in federation.agents.values():
        (heartbeat,) = [c for c in controllers if c.name == "heartbeat"]
        assert [kind.__name__ for kind in heartbeat.watches if isinstance(kind, type)] == ["Site"]


@pytest.mark.parametrize("seconds", [120, -120])
async def test_a_machine_two_minutes_off_loses_no_round(federation: Federation, seconds: int) -> None:
    """Finding 16: just before the deadline by the hub's clock, which the site's own has passed or not reached."""
    await asked(federation)
    federation.skew("site-a", seconds)
    federation.clock.advance(290)
    await federation.settle()
    assert condition(federation.updates("r1")["site-a"].status.conditions, "Consented").is_true
    assert condition(federation.found("r1").status.conditions, "Succeeded").is_true
