"""Every object says how far it is, in the words that kstatus, Argo CD, Flux and `kubectl wait` understand."""

from __future__ import annotations

from typing import Any

from concordat.api import FederationRound, Release, ReleaseChannel, Site, Update, find
from concordat.api.conditions import ConditionStatus, ConditionType
from tests.scenarios.federation import Federation

KINDS = (FederationRound, Site, Update, Release, ReleaseChannel)


def kstatus(obj: Any) -> str:
    """InProgress, Failed or Current, by the rules of sigs.k8s.io/cli-utils/pkg/kstatus."""
    conditions = obj.status.conditions
    if obj.status.observed_generation is not None and obj.status.observed_generation != obj.metadata.generation:
        return "InProgress"
    for type_, says in ((ConditionType.RECONCILING, "InProgress"), (ConditionType.STALLED, "Failed")):
        found = find(conditions, type_)
        if found is not None and found.status is ConditionStatus.TRUE:
            return says
    ready = find(conditions, ConditionType.READY)
    return "Current" if ready is None or ready.status is ConditionStatus.TRUE else "InProgress"


def shown(federation: Federation, *kinds: type[Any]) -> dict[str, str]:
    """What kstatus says of each object."""
    return {
        f"{kind.KIND.singular} {obj.metadata.namespace.removeprefix(federation.prefix + '-')}": kstatus(obj)
        for kind in kinds
        for obj in federation.cache.list(kind)
    }


async def test_nothing_is_current_before_it_was_looked_at(federation: Federation) -> None:
    """Finding 35: kstatus took each Update for done at once."""
    await federation.round("r1")
    await federation.sync()
    assert kstatus(federation.found("r1")) == "InProgress"
    for _ in range(3):
        await federation.operate()
        await federation.sync()
    updates = federation.cache.list(Update)
    assert len(updates) == 4
    assert {kstatus(update) for update in updates} == {"InProgress"}
    assert kstatus(federation.found("r1")) == "InProgress"


async def test_all_is_current_after_a_round_that_was_released(federation: Federation) -> None:
    """Finding 35."""
    await federation.round("r1")
    await federation.settle()
    assert set(shown(federation, *KINDS).values()) == {"Current"}


async def test_what_failed_has_failed_and_the_rest_is_current(federation: Federation) -> None:
    """Finding 35: a site that is out, and a round whose candidate was refused."""
    federation.outcomes = {federation.name("site-b"): "DeadlineExceeded"}
    federation.quality = {federation.name("evaluator"): 100_000}
    await federation.round("r1")
    await federation.settle()
    assert kstatus(federation.found("r1")) == "Failed"
    updates = shown(federation, Update)
    assert updates.pop("update site-b") == "Failed"
    assert set(updates.values()) == {"Current"}
    name = federation.released("r1")
    assert {short: kstatus(copy) for short, copy in federation.copies(name).items()} == {
        "hub": "Failed",
        "evaluator": "Failed",
    }
    assert set(shown(federation, Site, ReleaseChannel).values()) == {"Current"}
