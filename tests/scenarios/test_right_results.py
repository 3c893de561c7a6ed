"""No wrong result: what is signed is what was applied, no release discards another, nothing late counts."""

from __future__ import annotations

import itertools

from concordat.api import ConditionType, FederationRound, Release, is_true
from concordat.protocol.aggregation import AggregationRequest
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present


def ended(federation: Federation, name: str) -> tuple[str, str]:
    """Status and reason of Succeeded."""
    found = condition(federation.found(name).status.conditions, "Succeeded")
    return (found.status.value, found.reason)


async def test_an_edit_while_the_contract_is_signed_is_selected_anew(federation: Federation) -> None:
    """Finding 6: the contract says what the round says, whenever that was edited."""
    hub, edited = federation.cluster, 0

    async def edit(method: str, path: str) -> None:
        nonlocal edited
        if method == "PATCH" and path.endswith("/federationrounds/r1/status") and not edited:
            edited = 1
            await federation.patch("federationrounds", "r1", {"budget": {"maxSteps": 170}})

    hub.before = edit
    await federation.round("r1")
    await federation.settle()
    assert edited
    assert ended(federation, "r1") == ("True", "Released")
    contract, round_ = await federation.contract("r1"), federation.found("r1")
    assert contract.budget.max_steps == round_.spec.budget.max_steps == 170
    assert contract.round.generation == round_.metadata.generation


async def test_a_second_round_of_a_federation_waits_for_the_first_and_builds_on_it(federation: Federation) -> None:
    """Finding 7: no release silently throws another one away."""
    silent = federation.agents.pop(federation.name("site-d"))
    await federation.round("r1")
    await federation.settle()
    await federation.round("r2")
    await federation.settle()
    waits = condition(federation.found("r2").status.conditions, "SitesSelected")
    assert (waits.status.value, waits.reason) == ("False", "AnotherRoundOpen")
    assert "r1" in waits.message
    assert federation.found("r2").status.contract is None
    federation.agents[federation.name("site-d")] = silent
    await federation.settle()
    assert (ended(federation, "r1"), ended(federation, "r2")) == (("True", "Released"),) * 2
    first = federation.copies(federation.released("r1"))["hub"]
    second = federation.copies(federation.released("r2"))["hub"]
    assert (first.spec.sequence, second.spec.sequence) == (1, 2)
    assert second.spec.parent == first.spec.adapter


async def test_two_rounds_applied_at_once_are_contracted_one_after_the_other(federation: Federation) -> None:
    """Finding 7, with both before the operator at the same moment."""
    for name in ("r1", "r2", "r3"):
        await federation.round(name)
    await federation.settle(120)
    releases = sorted((r for r in federation.cache.list(Release, federation.hub_space)), key=lambda r: r.spec.sequence)
    assert [r.spec.sequence for r in releases] == [0, 1, 2, 3]
    for parent, child in itertools.pairwise(releases):
        assert child.spec.parent == parent.spec.adapter


async def test_a_hub_whose_clock_is_ahead_takes_no_round_for_superseded(federation: Federation) -> None:
    """A candidate is as old as the API server says, an approval as the hub does: within a second, or with clocks that
    differ, the release that a candidate builds on looks newer than the candidate.
    """
    federation.clock.advance(600)
    for name in ("r1", "r2"):
        await federation.round(name)
        await federation.settle()
        assert ended(federation, name) == ("True", "Released")


async def test_the_aggregator_gets_the_two_adapters_before_the_parent(federation: Federation) -> None:
    """Engine review, finding F7: with one, a replay is not found where the factors take turns."""
    for name in ("r1", "r2", "r3"):
        await federation.round(name)
    await federation.settle(120)
    start = present(federation.cache.get(Release, federation.hub_space, "digits-0")).spec.adapter
    first = federation.copies(federation.released("r1"))["hub"].spec.adapter
    wanted = {"r1": [], "r2": [start], "r3": [first, start]}
    for name, ancestors in wanted.items():
        ref = present(federation.found(name).status.aggregation).request
        data = await federation.registry.read(ref, AggregationRequest.FILE, AggregationRequest.LIMIT)
        assert AggregationRequest.from_bytes(data).ancestors == ancestors, name


async def test_the_aggregator_is_told_who_submitted_first(federation: Federation) -> None:
    """Engine review, finding F3: a site with an earlier name could copy an update and have the original rejected."""
    late = {name: federation.agents.pop(federation.name(name)) for name in ("site-a", "site-b", "site-c")}
    await federation.round("r1")
    await federation.settle()
    assert federation.found("r1").status.arrivals == [federation.name("site-d")]
    await federation.start_operator()
    for name in ("site-b", "site-a", "site-c"):
        federation.agents[federation.name(name)] = late[name]
        await federation.settle()
    ref = present(federation.found("r1").status.aggregation).request
    data = await federation.registry.read(ref, AggregationRequest.FILE, AggregationRequest.LIMIT)
    asked = [submission.site for submission in AggregationRequest.from_bytes(data).submissions]
    assert asked == [federation.name(name) for name in ("site-d", "site-b", "site-a", "site-c")]
    assert federation.found("r1").status.arrivals == []
    assert ended(federation, "r1") == ("True", "Released")


async def test_a_round_whose_parent_was_superseded_meanwhile_releases_nothing(federation: Federation) -> None:
    """Finding 7: approved by another way while the round ran, as after a hub was restored from a backup."""
    silent = federation.agents.pop(federation.name("site-d"))
    await federation.round("r1")
    await federation.settle()
    await federation.foreign_release("digits-9", sequence=9)
    federation.agents[federation.name("site-d")] = silent
    await federation.settle()
    assert ended(federation, "r1") == ("False", "ParentSuperseded")
    assert "digits-9" in condition(federation.found("r1").status.conditions, "Succeeded").message
    assert [r.spec.sequence for r in federation.cache.list(Release, federation.hub_space)] == [0, 9]


async def test_a_round_made_again_under_its_name_ends_by_itself(federation: Federation) -> None:
    """Finding 9: an approved release outlives its round, and the same training gives the same adapter."""
    parent = {"parent": {"releaseRef": {"name": "digits-0"}}}
    await federation.round("r1", **parent)
    await federation.settle()
    first = federation.released("r1")
    await federation.admin.delete(FederationRound, federation.hub_space, "r1")
    await federation.settle()
    federation.clock.advance(1)
    await federation.round("r1", **parent)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    second = federation.released("r1")
    assert second != first
    copies = federation.copies(second)
    assert copies["hub"].spec.sequence == 2
    assert is_true(copies["site-a"].status.conditions, ConditionType.ADOPTED)


async def test_an_update_that_comes_after_the_aggregation_began_counts_nowhere(federation: Federation) -> None:
    """Finding 15: the numbers of the status are those of the signed closure."""
    late = federation.agents.pop(federation.name("site-d"))
    federation.held = {federation.hub_space}  # The aggregator does not end.
    await federation.round("r1")
    await federation.settle()
    federation.clock.advance(301)
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "UpdatesCollected").is_true
    federation.clock.advance(-300)  # The site's clock is behind: for itself it is in time.
    federation.agents[federation.name("site-d")] = late
    for controllers in federation.agents.values():
        await federation.step(controllers)
    federation.clock.advance(300)
    federation.held = set()
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    status = federation.found("r1").status
    assert [gone.site for gone in status.dropped_sites] == [federation.name("site-d")]
    assert present(status.counts).submitted == 3
    assert present(status.counts).out == 1
    assert federation.name("site-d") not in {namespace for namespace, _ in federation.launched[:4]}
