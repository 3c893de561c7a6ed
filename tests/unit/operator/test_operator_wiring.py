"""Which changes lead to which reconciles; and what is kept of a Job."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from concordat.api import FederationRound, Membership, Release, ReleaseChannel, Site, Update
from concordat.api.resource import Resource
from concordat.api.types import LABEL_RELEASE, LABEL_ROUND_UID, LABEL_SITE
from concordat.controller import JOB, LEASE, Cache, FixedClock, KindLike, Obj
from concordat.controller.worker import Runner
from concordat.jobs import failure, is_suspended, outcome, pending
from concordat.protocol import artifact_types as types
from concordat.protocol.contract import Contract
from concordat.protocol.locations import AGENT_LEASE
from concordat.statements import SigningKey
from concordat_operator.controllers import controllers
from concordat_operator.hub import Hub
from concordat_operator.keys import Keys
from concordat_operator.settings import Settings
from concordat_operator.slim import slim_job
from tests.fakes.registry import MemoryRegistry
from tests.support.contracts import contract
from tests.support.hub import Make
from tests.support.jobs import Make as MakeJobs

ROUND = {LABEL_ROUND_UID: "0123abcd-1"}


class World:
    """The operator's wiring on a cache that a test feeds; nothing is reconciled, only counted."""

    def __init__(self, make: Make) -> None:
        self.make, self.version, self.now = make, 0, 1000.0
        self.cache = Cache()
        settings = Settings(namespace="concordat", registry_url="", operator_image="")
        unused: Any = None
        keys = Keys(SigningKey.generate(), SigningKey.generate())
        hub = Hub(settings, unused, self.cache, unused, FixedClock(make.now), keys)
        self.cache.watch([FederationRound, Membership, Site, Update, Release, ReleaseChannel, JOB, LEASE])
        self.runners = {controller.name: Runner(controller) for controller in controllers(hub)}
        for runner in self.runners.values():
            runner._now = runner.queue._now = lambda: self.now
        self.cache.subscribe(self.changed)

    def changed(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        for runner in self.runners.values():
            runner.notice(kind, old, new)

    def feed(self, obj: Resource, **labels: str) -> None:
        wire = obj.wire()
        wire["metadata"] |= {"resourceVersion": self.next(), "uid": wire["metadata"].get("uid") or obj.metadata.name}
        wire["metadata"]["labels"] = {**wire["metadata"].get("labels", {}), **labels}
        self.cache.feed({**wire, "kind": obj.KIND.kind})

    def beat(self, site: str) -> None:
        metadata = {"name": AGENT_LEASE, "namespace": site, "resourceVersion": self.next()}
        spec = {"renewTime": f"2026-11-24T12:00:{self.version % 60:02d}Z"}
        self.cache.feed({"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec})

    def next(self) -> str:
        self.version += 1
        return str(self.version)

    def passes(self, seconds: float = 0.2) -> Counter[str]:
        """Let time pass, and return how many reconciles came due, by controller."""
        self.now += seconds
        done: Counter[str] = Counter()
        for name, runner in self.runners.items():
            while (key := runner.queue._schedule.take(self.now)) is not None:
                done[name] += 1
                runner._note_end(key)
                runner.queue.done(key)
        return done

    def federation(self, sites: int) -> None:
        self.feed(self.make.channel())
        self.feed(self.make.release())
        self.feed(self.make.round())
        for number in range(sites):
            self.feed(self.make.site(f"site-{number}"))
        self.passes(5)

    def round_trip(self, sites: int) -> Counter[str]:
        """Feed what happens in a round of so many sites, ten of them each second; return the passes."""
        states: list[dict[str, str]] = [
            {},
            {"Consented": "True"},
            {"Consented": "True", "Staged": "True"},
            {"Submitted": "True"},
        ]
        done: Counter[str] = Counter()
        for state in states:
            for number in range(sites):
                self.feed(self.make.update(f"site-{number}", state), **ROUND)
                collected = self.make.conditions(UpdatesCollected="Unknown:Waiting")
                progress = {"conditions": [{**collected[0], "message": f"{number} of {sites}."}]}
                self.feed(self.make.round(progress))
                done += self.passes(0.1)
        for state in ({}, {"Staged": "True"}, {"Adopted": "True", "Champion": "True"}):
            for number in range(sites):
                copy = self.make.release("r1-1", 1, f"site-{number}", **(state or {"Ready": "False:InProgress"}))
                self.feed(copy, **{LABEL_RELEASE: "r1-1", LABEL_SITE: f"site-{number}"})
                done += self.passes(0.1)
        return done + self.passes(5)


async def test_a_rounds_progress_does_not_wake_its_updates_but_what_they_depend_on_does(make: Make) -> None:
    """Section C3: 299,730 reconciles of 1,000 Updates that had nothing to do."""
    world = World(make)
    for number in range(5):
        world.feed(make.update(f"site-{number}", {}), **ROUND)
    world.feed(make.round())
    world.passes(5)
    waiting = make.conditions(UpdatesCollected="Unknown:Waiting")
    world.feed(make.round({"conditions": waiting}))
    assert world.passes(5) == {"round": 1}
    world.feed(make.round({"conditions": [{**waiting[0], "message": "One more."}]}))
    assert world.passes(5) == {}
    world.feed(make.round(suspend=True))
    assert world.passes(5) == {"round": 1, "update": 5}
    world.feed(make.round({"conditions": make.conditions(UpdatesCollected="True")}, suspend=True))
    assert world.passes(5) == {"round": 1, "update": 5}


async def test_the_passes_of_a_round_grow_with_its_sites_and_not_with_their_square(make: Make) -> None:
    """Sections C2 and C3."""
    few, many = World(make), World(make)
    few.federation(20)
    many.federation(80)
    small, large = few.round_trip(20), many.round_trip(80)
    assert large["update"] == 4 * small["update"]
    assert large.total() <= 4.2 * small.total()
    assert large.total() < 8 * 80
    assert large["round"] < 80


async def test_a_copys_answer_leads_to_its_release_and_a_step_of_its_job_does_not(make: Make) -> None:
    world = World(make)
    for state in ({"Ready": "False:InProgress"}, {"Staged": "True"}):
        world.feed(make.release("r1-1", 1, "site-a", **state))
    world.passes(5)
    world.feed(make.release("r1-1", 1, "site-a", Staged="True", Validated="Unknown:Validating"))
    assert world.passes(5) == {"release": 1}
    world.feed(make.release("r1-1", 1, "site-a", Staged="True", Adopted="True"))
    assert world.passes(5) == {"release": 2}


async def test_a_renewed_lease_wakes_only_a_site_that_is_not_there(make: Make) -> None:
    """Finding 31."""
    world = World(make)
    world.feed(make.site("site-a", {"Ready": "True:Heartbeat"}))
    world.feed(make.site("site-b", {"Ready": "False:HeartbeatLost"}))
    world.passes(5)
    for site in ("site-a", "site-b", "elsewhere"):
        world.beat(site)
    assert world.passes(5) == {"site": 1}


async def test_a_site_that_comes_or_goes_wakes_what_waits_in_its_namespace(make: Make) -> None:
    """Finding 23."""
    world = World(make)
    world.feed(make.update("site-a", {}), **ROUND)
    world.feed(make.release("r1-1", 1, "site-a"))
    world.passes(5)
    world.feed(make.site("site-a"))
    assert world.passes(5) == {"site": 1, "membership": 1, "update": 1, "release": 1}
    world.feed(make.site("site-a", {"ClockSkew": "True"}))
    assert world.passes(5) == {"site": 1}


@pytest.mark.parametrize("kind", ["train", "evaluate", "aggregate"])
def test_a_slim_job_says_what_the_operator_asks_it(kind: str) -> None:
    job = MakeJobs().served(MakeJobs().jobs()[kind])
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "was too slow"}
    job = {**job, "status": {"conditions": [failed], "uncountedTerminatedPods": {}}}
    slim = slim_job(job)
    assert outcome(slim) == outcome(job)
    assert failure(slim, []) == failure(job, [])
    assert [o["uid"] for o in slim["metadata"]["ownerReferences"]] == [
        o["uid"] for o in job["metadata"]["ownerReferences"]
    ]
    assert slim["metadata"]["labels"] == job["metadata"]["labels"]
    assert pending(slim, []) == pending(job, [])
    assert is_suspended(slim) == is_suspended(job)
    assert len(repr(slim)) < 0.5 * len(repr(job))


@pytest.mark.attack("F10: a tenant makes Jobs of a megabyte with the hub's label", "operator's cache", "kept short")
def test_a_job_of_somebody_else_takes_little_memory() -> None:
    job = MakeJobs().served(MakeJobs().jobs()["train"])
    much, many = "x" * 100_000, range(1000)
    job["metadata"] |= {
        "annotations": {"a": much},
        "labels": {f"concordat.dev/{i}": "x" for i in many},
        "ownerReferences": [{"kind": much, "name": much, "uid": str(i)} for i in many],
    }
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container |= {"name": much, "image": much, "args": [much], "env": [{"name": much, "value": much}]}
    container["resources"]["limits"] = {"memory": much, **{f"example.com/{i}": much for i in range(10)}}
    job["spec"]["template"]["spec"] |= {"containers": [container] * 100, "initContainers": [container] * 100}
    condition = {"type": much, "status": "True", "reason": much, "message": much}
    job["status"] = {"conditions": [condition] * 100, "startTime": much, "uncountedTerminatedPods": {"failed": [much]}}
    assert len(repr(slim_job(job))) < 100_000


async def test_documents_are_kept_by_their_size(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding 39: 256 contracts of 1,000 sites took 172 MiB."""
    monkeypatch.setattr("concordat_operator.hub._CACHED_BYTES", 5000)
    registry = MemoryRegistry()
    unused: Any = None
    keys = Keys(SigningKey.generate(), SigningKey.generate())
    hub = Hub(Settings("concordat", "", ""), unused, Cache(), registry, unused, keys)
    refs = []
    for number in range(20):
        document = contract(
            round={"name": f"r{number}", "namespace": "concordat", "uid": f"u-{number}", "generation": 1}
        ).to_bytes()
        refs.append(await registry.push("digits/x", types.CONTRACT, {Contract.FILE: document}))
    for ref in refs:
        assert (await hub.contract(ref)).round.name == f"r{refs.index(ref)}"
    assert 0 < sum(size for _, size in hub._documents.values()) <= 5000
    assert refs[-1].digest in hub._documents
