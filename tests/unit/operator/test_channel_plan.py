"""Decisions of the operator about one channel: what it points to, who gets it, what became of it."""

from __future__ import annotations

from typing import Any

import pytest

from concordat.api import ConditionSet, ConditionType, find, is_true
from concordat_operator.channels import plan as channel_plan
from concordat_operator.releases.plan import (
    rollout,
)
from tests.support.hub import Make
from tests.support.presence import condition


def described(make: Make, channel: Any, releases: list[Any]) -> Any:
    seen = channel_plan.observe(channel, releases, make.sites())
    return seen, channel_plan.describe(seen, ConditionSet([], 1, make.now), 1)


def test_a_channel_follows_the_newest_approved_release_and_offers_it(make: Make) -> None:
    releases = [make.release(), make.release("r1-1", 1, Approved="True"), make.release("r2-1", 2, Approved="Unknown")]
    seen, status = described(make, make.channel(), releases)
    assert status.release.name == "r1-1"
    assert [s.metadata.name for s in seen.lacking] == ["site-a", "site-b", "site-c", "site-d", "site-e"]
    assert condition(status.conditions, "Ready").reason == "InProgress"
    copies = [used(make, "site-a"), make.release("r1-1", 1, "site-b", Adopted="False:PolicyRejected")]
    seen, status = described(make, make.channel(), [*releases, *copies])
    assert [s.metadata.name for s in seen.lacking] == ["site-c", "site-d", "site-e"]
    assert status.summary == "1 use it, 1 rejected, of 5"
    assert "site-c, site-d, site-e" in condition(status.conditions, "Ready").message
    everywhere = [used(make, f"site-{n}") for n in "abcde"]
    _, status = described(make, make.channel(), [*releases, *everywhere])
    assert condition(status.conditions, "Ready").reason == "RolledOut"
    assert find(status.conditions, ConditionType.RECONCILING) is None


def used(make: Make, space: str, name: str = "r1-1", sequence: int = 1) -> Any:
    """A site's copy that it adopted, and uses unless it adopted a later one."""
    return make.release(name, sequence, space, Adopted="True:Adopted")


def test_a_channel_pinned_back_says_that_its_sites_use_a_later_release(make: Make) -> None:
    hub = [make.release(), make.release("r1-1", 1, Approved="True"), make.release("r2-1", 2, Approved="True")]
    copies = []
    for n in "abcde":
        copies.append(used(make, f"site-{n}"))
        copies.append(used(make, f"site-{n}", "r2-1", 2))
    _, status = described(make, make.channel(release="r2-1"), [*hub, *copies])
    assert condition(status.conditions, "Ready").reason == "RolledOut"
    assert (status.summary, status.rollout.adopted) == ("5 use it, 0 rejected, of 5", 5)
    for earlier, sequence in (("r1-1", 1), ("digits-0", 0)):
        _, status = described(make, make.channel(release=earlier), [*hub, *copies])
        ready = condition(status.conditions, "Ready")
        assert (ready.status, ready.reason) == ("False", "CannotRollBack")
        assert f"{earlier} has sequence {sequence}, and site-a, site-b, site-c, site-d, site-e" in ready.message
        assert f"parent.releaseRef {earlier}" in ready.message
        assert status.rollout.adopted == 0
        assert find(status.conditions, ConditionType.RECONCILING) is None


def test_what_a_site_uses_in_another_federation_keeps_no_channel_back(make: Make) -> None:
    hub = [make.release(), make.release("r1-1", 1, Approved="True")]
    copies = [used(make, f"site-{n}") for n in "abcde"]
    other = used(make, "site-a", "letters-7", 7)
    other = other.model_copy(update={"spec": other.spec.model_copy(update={"federation": "letters"})})
    _, status = described(make, make.channel(), [*hub, *copies, other])
    assert condition(status.conditions, "Ready").reason == "RolledOut"


def test_a_pinned_channel_offers_its_pin_and_not_the_newest(make: Make) -> None:
    releases = [make.release(), make.release("r1-1", 1, Approved="True"), make.release("r2-1", 2, Approved="True")]
    seen, status = described(make, make.channel(release="r1-1"), releases)
    assert (status.release.name, status.sequence) == ("r1-1", 1)
    assert [s.metadata.name for s in seen.lacking] == ["site-a", "site-b", "site-c", "site-d", "site-e"]


def test_a_second_channel_reaches_only_the_sites_that_subscribe_to_it(make: Make) -> None:
    releases = [make.release(), make.release("r1-1", 1, Approved="True")]
    sites = make.sites()
    sites[0] = sites[0].model_copy(update={"spec": sites[0].spec.model_copy(update={"channel": "early"})})
    early = make.channel()
    early = early.model_copy(update={"metadata": early.metadata.model_copy(update={"name": "early"})})
    reached = [channel_plan.observe(channel, releases, sites).lacking for channel in (early, make.channel())]
    assert [[s.metadata.name for s in lacking] for lacking in reached] == [
        ["site-a"],
        ["site-b", "site-c", "site-d", "site-e"],
    ]


def test_the_start_of_a_federation_is_not_offered(make: Make) -> None:
    seen, status = described(make, make.channel(), [make.release()])
    assert seen.lacking == ()
    assert status.release.name == "digits-0"
    assert is_true(status.conditions, ConditionType.READY)


@pytest.mark.parametrize(
    ("pinned", "reason"), [("nothing", "NoRelease"), ("r2-1", "ReleaseNotApproved"), (None, "NoRelease")]
)
def test_a_channel_that_points_to_nothing_says_why(make: Make, pinned: str | None, reason: str) -> None:
    channel = make.channel(None, release=pinned) if pinned else make.channel()
    _, status = described(make, channel, [make.release("r2-1", 2, Approved="Unknown:Evaluating")])
    assert status.release is None
    assert condition(status.conditions, "Ready").reason == reason


def test_a_rollout_counts_answers_and_the_worst_fall(make: Make) -> None:
    def copy(space: str, word: str, before: int, after: int) -> Any:
        found = make.release("r1-1", 1, space, Adopted=word)
        figures = {
            "examples": 100,
            "parentPpm": before,
            "candidatePpm": after,
            "candidateLowPpm": after,
            "candidateHighPpm": after,
        }
        decision = {"statement": make.ref, "evaluation": figures}
        return type(found).model_validate({**found.wire(), "status": {**found.status.wire(), "decision": decision}})

    found = rollout(
        [copy("site-a", "True:Adopted", 800_000, 900_000), copy("site-b", "False:Regression", 900_000, 850_000)]
    )
    assert (found.offered, found.adopted, found.rejected) == (2, 1, 1)
    assert found.worst_regression_ppm == 50_000
    assert found.mean_quality_ppm == 875_000
