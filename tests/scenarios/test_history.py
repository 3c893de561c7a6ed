"""An end to everything: old rounds, releases and what they left in the registry; and deletions that meet obstacles."""

from __future__ import annotations

from typing import Any
from unittest.mock import AsyncMock

import pytest

from concordat.api import FederationRound, Release, Update
from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactError, RegistryUnavailable
from concordat.controller import JOB
from concordat.protocol import artifact_types as types
from concordat_operator.history.sequences import highest_deleted
from tests.scenarios.faults import forbids
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present

SITES = ("site-a", "site-b", "site-c", "site-d")


async def bounded(federation: Federation, limit: int = 2) -> None:
    """Go on with an operator that keeps this many rounds."""
    federation.history_limit = limit
    await federation.start_operator()


async def run(federation: Federation, name: str, *, approved: bool = True) -> str:
    """Run a round to its end, each better than the last, and return the name of its release."""
    better = 850_000 + 1_000 * len(federation.launched)
    everywhere = {federation.name(short): better for short in (*SITES, "evaluator")}
    federation.quality = everywhere if approved else {**everywhere, federation.name("evaluator"): 100_000}
    await federation.round(name)
    await federation.settle()
    return federation.released(name)


def rounds(federation: Federation) -> list[str]:
    """The rounds that are left, by name."""
    return [r.metadata.name for r in federation.cache.list(FederationRound)]


async def exists(federation: Federation, ref: ArtifactRef) -> bool:
    """Whether the registry has the artifact."""
    return ref in await federation.registry.artifacts(ref.repository)


async def test_old_rounds_and_releases_go_with_all_they_made_and_what_is_used_stays(federation: Federation) -> None:
    """Finding 13: nothing was ever cleaned up, and memory, etcd and the registry grew until a crash loop."""
    await bounded(federation)
    releases = {}
    artifacts: dict[str, list[ArtifactRef]] = {}
    for number in range(1, 5):
        name = f"r{number}"
        releases[name] = await run(federation, name)
        uid = federation.found(name).metadata.uid
        repositories = [f"digits/rounds/{uid}", *(f"digits/rounds/{uid}/{federation.name(s)}" for s in SITES)]
        artifacts[name] = [ref for at in repositories for ref in await federation.registry.artifacts(at)]
        hub = federation.copies(releases[name])["hub"]
        artifacts[name] += [hub.spec.adapter, present(hub.spec.lineage), present(hub.status.lineage)]
        artifacts[name] += [
            present(copy.status.decision).statement
            for short, copy in federation.copies(releases[name]).items()
            if short != "hub"
        ]
        assert len(artifacts[name]) > 20
    assert rounds(federation) == ["r3", "r4"]
    uids = {r.metadata.uid for r in federation.cache.list(FederationRound)}
    assert {u.spec.round_ref.uid for u in federation.cache.list(Update)} == uids
    kept = {releases[name] for name in ("r3", "r4")}
    assert {r.metadata.name for r in federation.cache.list(Release)} == {"digits-0", *kept}
    assert {j["metadata"]["labels"]["concordat.dev/round-uid"] for j in federation.cache.list(JOB)} == uids
    for name, refs in artifacts.items():
        wanted = name in ("r3", "r4")
        # The adapter that the oldest living release was made from is still named by it.
        parent = federation.copies(releases["r3"])["hub"].spec.parent
        assert [ref for ref in refs if await exists(federation, ref) is not wanted and ref != parent] == [], name
    assert len(await federation.registry.artifacts("digits/releases")) == 2
    # The sites go on from where they are.
    assert await federation.champion("site-a") == releases["r4"]
    assert federation.copies(await run(federation, "r5"))["hub"].spec.sequence == 5


async def test_a_site_that_lags_behind_keeps_what_it_uses(federation: Federation) -> None:
    await bounded(federation)
    await federation.join("site-e", channel="slow")
    await federation.create("ReleaseChannel", "slow", {"federation": "digits", "follow": "Approved"})
    await federation.settle()
    first, second = await run(federation, "r1"), await run(federation, "r2")
    await federation.patch("releasechannels", "slow", {"release": second, "follow": None})
    for number in range(3, 6):
        await run(federation, f"r{number}")
    assert await federation.champion("site-e") == second
    assert rounds(federation) == ["r1", "r2", "r4", "r5"]
    for name in (first, second):
        copies = federation.copies(name)
        assert {"hub", "site-e"} <= set(copies)
        assert await exists(federation, copies["hub"].spec.adapter)
        assert await exists(federation, present(copies["hub"].status.lineage))


async def test_a_sequence_is_never_given_twice(federation: Federation) -> None:
    """Finding 13: with its release deleted, the highest sequence was free again."""
    await bounded(federation)
    first = await run(federation, "good")
    await run(federation, "bad", approved=False)
    uid = federation.found("bad").metadata.uid
    rejected = present(present(federation.found("bad").status.aggregate).adapter)
    await federation.admin.delete(FederationRound, federation.hub_space, "bad")
    await federation.settle()
    assert rounds(federation) == ["good"]
    assert await highest_deleted(federation.admin, federation.hub_space, "digits") == 2
    assert not await exists(federation, rejected)
    assert await federation.registry.artifacts(f"digits/rounds/{uid}") == []
    assert await exists(federation, federation.copies(first)["hub"].spec.adapter)
    assert federation.copies(await run(federation, "next"))["hub"].spec.sequence == 3


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_operator_killed_at_every_write_deletes_the_same(federation: Federation, moment: str) -> None:
    """Findings 13 and 33: every deletion is found again after a crash."""
    for number in range(1, 4):
        await run(federation, f"r{number}")
    bases = await federation.registry.artifacts("digits/base")
    federation.mortal = moment
    await bounded(federation, 1)
    await federation.settle(200)
    assert federation.deaths > 10
    # The sites use the third release and used the second before.
    assert rounds(federation) == ["r2", "r3"]
    names = {federation.released(name) for name in rounds(federation)}
    assert {r.metadata.name for r in federation.cache.list(Release)} == {"digits-0", *names}
    uids = {r.metadata.uid for r in federation.cache.list(FederationRound)}
    assert {u.spec.round_ref.uid for u in federation.cache.list(Update)} == uids
    assert len(await federation.registry.artifacts("digits/releases")) == 2
    assert await federation.registry.artifacts("digits/base") == bases


async def test_an_outage_of_the_registry_delays_a_deletion_and_is_told(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(federation, "r1", approved=False)
    uid = federation.found("r1").metadata.uid
    away = RegistryUnavailable("the registry does not answer")
    with monkeypatch.context() as outage:
        outage.setattr(federation.registry, "delete", AsyncMock(side_effect=away))
        await federation.admin.delete(FederationRound, federation.hub_space, "r1")
        await federation.settle()
        ready = condition(federation.found("r1").status.conditions, "Ready")
        assert (ready.status.value, ready.reason) == ("False", "RegistryUnavailable")
    await federation.settle()
    assert rounds(federation) == []
    assert await federation.registry.artifacts(f"digits/rounds/{uid}") == []


async def test_a_registry_that_refuses_to_delete_keeps_nobody_waiting(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(federation, "r1", approved=False)
    refused = ArtifactError("the registry does not delete")
    monkeypatch.setattr(federation.registry, "delete", AsyncMock(side_effect=refused))
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    assert rounds(federation) == []


async def test_a_dependent_that_does_not_go_is_named_and_asked_once(federation: Federation) -> None:
    """Finding 33: it was deleted again every second, and no condition said what the round waited for."""
    await run(federation, "r1")
    stuck = federation.updates("r1")["site-b"]
    path = f"/apis/concordat.dev/v1alpha1/namespaces/{stuck.metadata.namespace}/updates/{stuck.metadata.name}"

    async def finalizers(names: list[str]) -> None:
        body = {"metadata": {"finalizers": names}}
        await federation.admin._write("PATCH", path, body, content_type="application/merge-patch+json")

    await finalizers(["example.com/hold"])
    deletions: list[str] = []

    def count(method: str, at: str) -> None:
        if method == "DELETE" and at == path:
            deletions.append(at)

    federation.cluster.before = count
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    for _ in range(3):
        await federation.settle()
    assert len(deletions) == 1
    ready = condition(federation.found("r1").status.conditions, "Ready")
    assert (ready.status.value, ready.reason) == ("False", "CleaningUp")
    assert f"update {stuck.metadata.namespace}/{stuck.metadata.name} (example.com/hold)" in ready.message
    await finalizers([])
    await federation.settle()
    assert rounds(federation) == []


async def test_a_site_whose_rights_are_away_for_a_moment_keeps_nothing_of_the_round(federation: Federation) -> None:
    """Found by the soak: its Update stayed until the next resync, of a round that was gone."""
    await run(federation, "r1", approved=False)
    federation.cluster.before = forbids("DELETE", federation.name("site-b"))
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    assert rounds(federation) == ["r1"]
    federation.cluster.before = None
    await federation.settle()
    assert rounds(federation) == []
    assert await federation.admin.list(Update, federation.name("site-b")) == []


async def test_a_site_that_lets_the_hub_delete_nothing_holds_the_round_for_a_minute(federation: Federation) -> None:
    await run(federation, "r1", approved=False)
    federation.cluster.before = forbids("DELETE", federation.name("site-b"))
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    federation.clock.advance(120)
    await federation.settle()
    assert rounds(federation) == []


async def test_an_update_that_the_cache_does_not_know_is_deleted_with_its_round(federation: Federation) -> None:
    """Finding 33: the finalizer was dropped when the cache, not the API server, knew of nothing more."""
    await run(federation, "r1")
    known = federation.cache.list

    def blind(kind: Any, namespace: Any = None, labels: Any = None) -> Any:
        return [] if kind is Update and labels else known(kind, namespace, labels)

    federation.cache.list = blind  # type: ignore[method-assign]
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    assert rounds(federation) == []
    assert await federation.admin.list(Update, federation.name("site-b")) == []


async def test_an_update_of_a_round_that_is_gone_is_removed_and_its_job_stopped(federation: Federation) -> None:
    """Finding 33: an orphan was left alone, and its Job ran on."""
    await run(federation, "r1")
    update = federation.updates("r1")["site-c"]
    body: dict[str, Any] = {"metadata": {"finalizers": []}}
    path = f"/apis/concordat.dev/v1alpha1/namespaces/{federation.hub_space}/federationrounds/r1"
    await federation.admin._write("PATCH", path, body, content_type="application/merge-patch+json")
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    assert federation.cache.get(JOB, *update.key) is not None
    await federation.settle()
    assert federation.cache.list(Update) == []
    assert federation.cache.get(JOB, *update.key) is None


async def test_a_site_cannot_direct_a_deletion_at_what_is_not_its_own(federation: Federation) -> None:
    name = await run(federation, "r1", approved=False)
    copy = federation.copies(name)["evaluator"]
    foreign = await federation.registry.push("digits/decisions/somebody-else", types.STATEMENT, {"a": b"a"})
    status = copy.status.model_copy(deep=True)
    present(status.decision).statement = foreign
    decision = {"decision": present(status.decision).wire()}
    await federation.admin.apply_status(Release, *copy.key, decision, "concordat-agent")
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    assert rounds(federation) == []
    assert await exists(federation, foreign)


async def test_of_a_round_that_git_applies_the_updates_go(federation: Federation) -> None:
    """Deleted, the round would be applied and run again."""
    await bounded(federation, 1)
    await run(federation, "r1", approved=False)
    labels = {"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "hub"}}}
    path = f"/apis/concordat.dev/v1alpha1/namespaces/{federation.hub_space}/federationrounds/r1"
    await federation.admin._write("PATCH", path, labels, content_type="application/merge-patch+json")
    await run(federation, "r2", approved=False)
    await federation.settle()
    assert rounds(federation) == ["r1", "r2"]
    assert federation.updates("r1") == {}
    assert set(federation.updates("r2")) == set(SITES)
    assert condition(federation.found("r1").status.conditions, "Succeeded").reason == "NotApproved"
