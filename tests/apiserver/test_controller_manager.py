"""The manager against a real API server: sync, watch, resync, elect, probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from concordat.api import ConditionSet, ConditionType, Reason, ReleaseChannel
from concordat.api.release import ReleaseChannelStatus
from concordat.controller import (
    JOB,
    LEASE,
    Cache,
    Cluster,
    Controller,
    Key,
    KindLike,
    LeaderConfig,
    Options,
    Result,
    SystemClock,
    Transient,
    run,
    write_status,
)
from concordat.controller.leader import Leader, LeadershipLost
from concordat.controller.metrics import LEADER
from concordat_devcluster.control_plane import ControlPlane
from tests.support.namespaces import new_namespace
from tests.support.presence import present
from tests.support.waiting import no_hang

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
PATIENT = {"duration": 240.0, "renew_deadline": 120.0, "retry": 0.3}
"""Nobody loses this Lease because the machine was busy."""


@pytest.fixture
async def cluster(crds: ControlPlane) -> AsyncIterator[Cluster]:
    async with Cluster(crds.kubeconfig, qps=1000, burst=1000) as opened:
        yield opened


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    return await new_namespace(cluster, "host")


def channel(namespace: str, name: str = "stable", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "concordat.dev/v1alpha1",
        "kind": "ReleaseChannel",
        "metadata": {"namespace": namespace, "name": name, **metadata},
        "spec": {"federation": "digits", "follow": "Approved"},
    }


def job(namespace: str, name: str, managed_by: str) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    labels = {"app.kubernetes.io/managed-by": managed_by}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


class Program:
    """A small controller over ReleaseChannels and Jobs, which notes what it sees in every pass."""

    def __init__(self, cluster: Cluster, cache: Cache | None = None) -> None:
        self.cluster = cluster
        self.cache = cache or Cache()
        self.passes: list[tuple[str, str | None]] = []
        self.failing: list[Exception] = []
        self.stop = asyncio.Event()
        self.port = 0
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def listening(self, port: int) -> None:
        self.port = port
        self._progress.set()

    def by_name(self, obj: Any) -> list[Key]:
        return [obj.key]

    def by_job(self, obj: dict[str, Any]) -> list[Key]:
        return [(obj["metadata"]["namespace"], obj["metadata"]["name"])]

    async def reconcile(self, key: Key) -> Result:
        seen = self.cache.get(ReleaseChannel, *key)
        note = "job" if self.cache.get(JOB, *key) else None if seen is None else seen.metadata.labels.get("n", "")
        self.note(key[1], note)
        if self.failing:
            raise self.failing.pop()
        if seen is not None:
            made = ConditionSet(seen.status.conditions, seen.metadata.generation, NOON)
            made.set(ConditionType.READY, True, Reason.ROLLED_OUT, "done")
            await write_status(self.cluster, seen, ReleaseChannelStatus(conditions=made.list()), "test-status")
        return Result()

    def note(self, name: str, what: str | None) -> None:
        self.passes.append((name, what))
        self._progress.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with no_hang(lambda: f"a pass beyond {self.passes}"):
            while not happened():
                self._progress.clear()
                await self._progress.wait()
                if self._task is not None and self._task.done() and not happened():
                    self._task.result()

    async def sees(self, *passes: tuple[str, str | None]) -> None:
        await self.until(lambda: set(passes) <= set(self.passes))

    @asynccontextmanager
    async def running(self, namespaces: list[str] | None, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
        self.stop.clear()
        watches: dict[KindLike, Callable[[Any], list[Key]]] = {ReleaseChannel: self.by_name, JOB: self.by_job}
        settings = {
            "namespaces": namespaces,
            "selectors": {JOB: "app.kubernetes.io/managed-by=concordat-operator"},
            "leader": None,
            "http_port": 0,
        }
        task = self._task = asyncio.create_task(
            run(
                [Controller("test", watches, self.reconcile)],
                Options(**(settings | options)),
                cluster=self.cluster,
                cache=self.cache,
                clock=SystemClock(),
                stop=self.stop,
                listening=self.listening,
            )
        )
        # So that a test waiting for progress fails with the program's error, not with a timeout.
        task.add_done_callback(lambda _: self._progress.set())
        try:
            yield task
        finally:
            self.stop.set()
            async with no_hang(lambda: "the program to stop"):
                await asyncio.wait([task])
        if not task.cancelled() and task.exception():
            await task


async def test_a_change_leads_to_a_pass(cluster: Cluster, namespace: str) -> None:
    await cluster.create(channel(namespace, "before"))
    program = Program(cluster)
    async with program.running([namespace]):
        await program.sees(("before", ""))
        made = await cluster.create(channel(namespace, "made"))
        await program.sees(("made", ""))
        await cluster.apply(channel(namespace, "made", labels={"n": "2"}), "test")
        await program.sees(("made", "2"))
        await cluster.delete(ReleaseChannel, namespace, "made", made["metadata"]["uid"])
        await program.sees(("made", None))
        left = await cluster.get(ReleaseChannel, namespace, "before")
        assert "annotations" not in left["metadata"]
        assert "finalizers" not in left["metadata"]
        assert left["status"]["conditions"][0]["type"] == "Ready"


async def test_our_own_write_settles_after_one_more_pass(cluster: Cluster, namespace: str) -> None:
    await cluster.create(channel(namespace, "a"))
    program = Program(cluster)
    async with program.running([namespace]):
        await program.until(lambda: program.passes.count(("a", "")) == 2)
        await cluster.create(channel(namespace, "b"))
        await program.until(lambda: program.passes.count(("b", "")) == 2)
    assert program.passes.count(("a", "")) == 2


async def test_no_pass_before_every_kind_is_listed(cluster: Cluster, namespace: str) -> None:
    for number in range(5):
        await cluster.create(channel(namespace, f"c{number}"))
        await cluster.create(job(namespace, f"j{number}", "concordat-operator"))
    program = Program(cluster)
    first: list[tuple[int, int]] = []
    inner = program.reconcile

    async def reconcile(key: Key) -> Result:
        counts = (len(program.cache.list(ReleaseChannel, namespace)), len(program.cache.list(JOB, namespace)))
        first.append(counts)
        return await inner(key)

    program.reconcile = reconcile  # type: ignore[method-assign]
    async with program.running([namespace]):
        await program.until(lambda: len(first) >= 10)
    assert first[0] == (5, 5)


async def test_an_object_whose_finalizer_we_remove_is_gone(cluster: Cluster, namespace: str) -> None:
    program = Program(cluster)
    inner = program.reconcile

    async def reconcile(key: Key) -> Result:
        seen = program.cache.get(ReleaseChannel, *key)
        if seen is not None and seen.metadata.deletion_timestamp is not None:
            program.note(key[1], "deleting")
            await cluster.set_finalizers(ReleaseChannel, *key, [], seen.metadata.resource_version)
        return await inner(key) if seen is None else Result()

    program.reconcile = reconcile  # type: ignore[method-assign]
    await cluster.create(channel(namespace, "x", finalizers=["concordat.dev/round-cleanup"]))
    async with program.running([namespace]):
        await cluster.delete(ReleaseChannel, namespace, "x")
        await program.sees(("x", "deleting"), ("x", None))
        assert program.cache.get(ReleaseChannel, namespace, "x") is None


async def test_foreign_jobs_stay_outside(cluster: Cluster, namespace: str) -> None:
    program = Program(cluster)
    await cluster.create(job(namespace, "foreign-before", "someone"))
    async with program.running(None):
        await cluster.create(job(namespace, "foreign", "someone"))
        await cluster.create(job(namespace, "ours", "concordat-operator"))
        await program.sees(("ours", "job"))
        assert [o["metadata"]["name"] for o in program.cache.list(JOB, namespace)] == ["ours"]


async def test_what_was_deleted_while_nobody_watched_disappears(cluster: Cluster, namespace: str) -> None:
    for name in ("stays", "goes"):
        await cluster.create(channel(namespace, name))
    program = Program(cluster)
    async with program.running([namespace]):
        await program.sees(("stays", ""), ("goes", ""))
    await cluster.delete(ReleaseChannel, namespace, "goes")
    async with program.running([namespace]):
        await program.sees(("goes", None))
        assert [c.metadata.name for c in program.cache.list(ReleaseChannel)] == ["stays"]


async def test_the_resync_finds_what_no_event_told(cluster: Cluster, namespace: str) -> None:
    program = Program(cluster)
    async with program.running([namespace], resync_seconds=0.5):
        made = await cluster.create(channel(namespace, "real"))
        await program.sees(("real", ""))
        ghost = channel(namespace, "ghost", uid="gone", resourceVersion=made["metadata"]["resourceVersion"])
        program.cache.feed(ghost)
        await program.sees(("ghost", None))
        assert program.cache.get(ReleaseChannel, namespace, "real") is not None


async def test_everything_is_looked_at_again_every_so_often(cluster: Cluster, namespace: str) -> None:
    await cluster.create(channel(namespace, "quiet"))
    program = Program(cluster)
    async with program.running([namespace], resync_seconds=0.5):
        await program.until(lambda: program.passes.count(("quiet", "")) >= 5)


async def test_a_transient_failure_is_tried_again(cluster: Cluster, namespace: str) -> None:
    program = Program(cluster)
    program.failing.append(Transient("registry down", retry_after=0.1))
    await cluster.create(channel(namespace, "x"))
    async with program.running([namespace]):
        await program.until(lambda: program.passes.count(("x", "")) >= 2)


async def test_probes_and_metrics(cluster: Cluster, namespace: str) -> None:
    await cluster.create(channel(namespace, "x"))
    program = Program(cluster)
    async with program.running([namespace]), aiohttp.ClientSession() as http:
        # The second pass follows the first one's write: by then the first is counted, and nothing is due.
        await program.until(lambda: program.passes.count(("x", "")) == 2)
        url = f"http://127.0.0.1:{program.port}"
        for page in ("healthz", "readyz"):
            async with http.get(f"{url}/{page}") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
        async with http.get(f"{url}/metrics") as answer:
            text = await answer.text()
    assert 'concordat_reconcile_total{controller="test",result="success"}' in text
    assert 'concordat_watch_last_event_timestamp_seconds{kind="ReleaseChannel"}' in text
    assert 'concordat_workqueue_depth{controller="test"} 0.0' in text


async def test_not_ready_says_which_list_is_missing(crds: ControlPlane, namespace: str) -> None:
    async with Cluster(crds.kubeconfig_for("nobody")) as denied, aiohttp.ClientSession() as http:
        program = Program(denied)
        async with program.running([namespace]):
            await program.until(lambda: program.port > 0)
            text = ""
            async with no_hang(lambda: f"what is forbidden, not {text!r}"):
                while "forbidden" not in text:
                    async with http.get(f"http://127.0.0.1:{program.port}/readyz") as answer:
                        assert answer.status == 503
                        text = await answer.text()
            assert "releasechannels" in text


async def test_one_of_two_acts_and_the_other_takes_over(crds: ControlPlane, namespace: str) -> None:
    async with Cluster(crds.kubeconfig) as one, Cluster(crds.kubeconfig) as two:
        first, second = Program(one), Program(two)
        await one.create(channel(namespace, "x"))
        async with first.running([namespace], leader=LeaderConfig(namespace, "lock", "first", **PATIENT)):
            await first.sees(("x", ""))
            async with second.running([namespace], leader=LeaderConfig(namespace, "lock", "second", **PATIENT)):
                await one.create(channel(namespace, "y"))
                await first.sees(("y", ""))
                assert second.passes == []
                first.stop.set()
                await second.sees(("x", ""), ("y", ""))
                lease = await two.get(LEASE, namespace, "lock")
                assert lease["spec"]["holderIdentity"] == "second"
                assert lease["spec"]["leaseTransitions"] >= 2


async def test_a_program_that_loses_its_lease_stands_by_and_comes_back(cluster: Cluster, namespace: str) -> None:
    """Finding 43: with its cache, and without a pass in between."""
    program = Program(cluster)
    config = LeaderConfig(namespace, "lock", "loser", **PATIENT)
    await cluster.create(channel(namespace, "x"))
    metadata = {"namespace": namespace, "name": "lock"}
    lease = {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata}
    async with program.running([namespace], leader=config):
        await program.until(lambda: program.passes.count(("x", "")) == 2)
        await cluster.apply({**lease, "spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}}, "thief")
        async with no_hang(lambda: "the loss of the Lease"):
            while LEADER._value.get():
                await cluster.get(LEASE, namespace, "lock")
        await cluster.apply(channel(namespace, "x", labels={"n": "2"}), "test")
        async with no_hang(lambda: "the change in the cache"):
            while present(program.cache.get(ReleaseChannel, namespace, "x")).metadata.labels != {"n": "2"}:
                await cluster.get(LEASE, namespace, "lock")
        assert (await cluster.get(LEASE, namespace, "lock"))["spec"]["holderIdentity"] == "thief"
        assert program.passes.count(("x", "2")) == 0
        await cluster.apply({**lease, "spec": {"holderIdentity": "", "leaseDurationSeconds": 60}}, "thief")
        await program.sees(("x", "2"))
        assert (await cluster.get(LEASE, namespace, "lock"))["spec"]["holderIdentity"] == "loser"


async def test_a_silent_holder_is_waited_for_and_then_replaced(cluster: Cluster, namespace: str) -> None:
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "renewTime": "2099-01-01T00:00:00.000000Z"}
    metadata = {"namespace": namespace, "name": "lock"}
    await cluster.create({"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": spec})
    program = Program(cluster)
    await cluster.create(channel(namespace, "x"))
    async with program.running([namespace], leader=LeaderConfig(namespace, "lock", "heir", **PATIENT)):
        await program.sees(("x", ""))
        lease = await cluster.get(LEASE, namespace, "lock")
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("heir", 1)


@pytest.mark.parametrize("taken", [False, True])
async def test_a_holder_that_stood_still_asks_who_leads_before_it_gives_up(
    cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """As a process does that was stopped, or got no processor, for longer than renew_deadline."""
    leader = Leader(cluster, LeaderConfig(namespace, "lock", "one"), SystemClock())
    await leader.acquire()
    acquired = (await cluster.get(LEASE, namespace, "lock"))["spec"]["renewTime"]
    holding = asyncio.create_task(leader.hold())
    await asyncio.sleep(0)
    if taken:
        metadata = {"namespace": namespace, "name": "lock"}
        lease = {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata}
        await cluster.apply({**lease, "spec": {"holderIdentity": "two"}}, "two")
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 12)

    async def renewed() -> bool:
        return bool((await cluster.get(LEASE, namespace, "lock"))["spec"]["renewTime"] != acquired)

    async with no_hang(lambda: "a renewal, or the loss of the Lease"):
        while not (holding.done() or await renewed()):
            pass  # The request lets the holder work.
    assert holding.done() == taken
    holding.cancel()
    with pytest.raises(LeadershipLost if taken else asyncio.CancelledError):
        await holding
