"""Which rounds, releases and copies go, and which stay whatever their age."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from concordat.api import FederationRound, Release
from concordat.api.site import Champion
from concordat.api.types import ArtifactRef, RoundRef
from concordat_operator.history.plan import ObservedHistory, Surplus, named_digests, surplus
from concordat_operator.rounds.cleanup import pause
from tests.support.hub import REF, Make

KEEP = {"annotations": {"concordat.dev/keep": "true"}}


def past(make: Make, number: int, *, reason: str = "Released", **metadata: Any) -> FederationRound:
    """A round that ended in minute `number`."""
    conditions = make.conditions(Succeeded=f"{'True' if reason == 'Released' else 'False'}:{reason}")
    conditions[0]["lastTransitionTime"] = make.now + timedelta(minutes=number)
    status = {"conditions": conditions, "observedGeneration": 1}
    return make.round(status, {"name": f"r{number}", "uid": f"uid-{number}", **metadata})


def of_round(make: Make, number: int, namespace: str = "concordat", **conditions: str) -> Release:
    """The release of a round, with the round's number as its sequence."""
    release = make.release(f"v{number}", number, namespace, **(conditions or {"Approved": "True:Approved"}))
    release.spec.round_ref = RoundRef(name=f"r{number}", namespace="concordat", uid=f"uid-{number}")
    return release


def going(observed: ObservedHistory, limit: int = 3) -> dict[str, list[str]]:
    """What goes, by kind."""
    found = surplus(observed, limit)
    return {
        "rounds": [r.metadata.name for r in found.rounds],
        "releases": [r.metadata.name for r in found.releases],
        "copies": [f"{c.metadata.namespace}/{c.metadata.name}" for c in found.copies],
    }


def history(
    make: Make, rounds: list[FederationRound] | None = None, releases: list[Release] | None = None, **more: Any
) -> ObservedHistory:
    """Eight rounds that ended, none of which was approved, and a channel that points to the newest."""
    rounds = [past(make, n, reason="NotApproved") for n in range(8)] if rounds is None else rounds
    known: dict[str, Any] = {"channels": [make.channel("v7")], "sites": make.sites(), **more}
    return ObservedHistory("concordat", rounds, releases or [], **known)


def test_the_last_rounds_to_end_stay_and_the_older_go(make: Make) -> None:
    """Finding 13: nothing was ever cleaned up."""
    assert going(history(make))["rounds"] == ["r0", "r1", "r2", "r3", "r4"]
    assert not surplus(history(make), 8)
    assert surplus(history(make), 8) == Surplus()


@pytest.mark.parametrize(
    "mark",
    [
        {"labels": {"kustomize.toolkit.fluxcd.io/name": "hub"}},
        {"labels": {"app.kubernetes.io/instance": "hub"}},
        {"annotations": {"argocd.argoproj.io/tracking-id": "hub:concordat.dev/FederationRound:concordat/r0"}},
        {"annotations": {"meta.helm.sh/release-name": "rounds"}},
    ],
)
def test_a_round_that_a_tool_applies_stays_and_its_updates_go(make: Make, mark: dict[str, Any]) -> None:
    """Deleted, it would be applied and run again."""
    rounds = [past(make, 0, reason="NotApproved", **mark), *(past(make, n, reason="NotApproved") for n in range(1, 5))]
    found = surplus(history(make, rounds, with_updates=frozenset({"uid-0", "uid-4"})), 3)
    assert [r.metadata.name for r in found.emptied] == ["r0"]
    assert [r.metadata.name for r in found.rounds] == ["r1"]
    assert not surplus(history(make, rounds[:1]), 0).emptied


@pytest.mark.parametrize(
    ("stays", "metadata", "status"),
    [
        ("kept by a person", KEEP, None),
        ("still open", {}, {}),
        ("being deleted", {"deletionTimestamp": "2026-11-24T12:00:00Z"}, None),
    ],
)
def test_a_round_stays_that_is(make: Make, stays: str, metadata: dict[str, Any], status: dict[str, Any] | None) -> None:
    rounds = [past(make, n, reason="NotApproved") for n in range(1, 8)]
    old = past(make, 0, **metadata)
    if status is not None:
        old = make.round(status, {"name": "r0", "uid": "uid-0"})
    assert going(history(make, [old, *rounds]))["rounds"] == ["r1", "r2", "r3", "r4"], stays


def test_a_round_stays_as_long_as_its_release_and_goes_after_it(make: Make) -> None:
    rounds = [past(make, n) for n in range(8)]
    releases = [of_round(make, n) for n in range(1, 8)]
    found = going(history(make, rounds, releases))
    assert found["releases"] == ["v1", "v2", "v3", "v4"]
    assert found["rounds"] == ["r0"]
    assert going(history(make, rounds, releases[4:]))["rounds"] == ["r0", "r1", "r2", "r3", "r4"]


def pinned(make: Make) -> dict[str, Any]:
    """A channel pinned to the oldest release, and not yet looked at."""
    return {"channels": [make.channel(None, release="v1")]}


def followed(make: Make) -> dict[str, Any]:
    """A channel that still shows it."""
    return {"channels": [make.channel("v1")]}


def champion(make: Make) -> dict[str, Any]:
    """A site whose status names it."""
    site = make.site("site-a")
    ref = ArtifactRef.model_validate(REF)
    site.status.champion = Champion(release="v1", sequence=1, artifact=ref, quality_ppm=1)
    return {"sites": [site]}


def contracted(_: Make) -> dict[str, Any]:
    """An open round whose contract starts from it."""
    return {"parents": frozenset({"v1"})}


@pytest.mark.parametrize("use", [pinned, followed, champion, contracted])
def test_a_release_in_use_stays_and_so_does_its_round(make: Make, use: Callable[[Make], dict[str, Any]]) -> None:
    rounds, releases = [past(make, n) for n in range(1, 8)], [of_round(make, n) for n in range(1, 8)]
    found = going(history(make, rounds, releases, **use(make)))
    assert found["releases"] == ["v2", "v3", "v4"]
    assert found["rounds"] == []


def test_the_parent_that_an_open_round_names_stays(make: Make) -> None:
    opened = make.round({}, {"name": "open", "uid": "uid-open"}, parent={"releaseRef": {"name": "v1"}})
    releases = [of_round(make, n) for n in range(1, 8)]
    assert going(history(make, [opened], releases))["releases"] == ["v2", "v3", "v4"]


def test_the_release_before_the_parent_of_an_open_round_stays(make: Make) -> None:
    """Engine review, finding F7: the aggregator reads the adapter that it names."""
    releases = [of_round(make, n) for n in range(1, 8)]
    for number, release in enumerate(releases):
        release.spec.adapter = ArtifactRef(repository="digits/adapters", digest=f"sha256:{number + 1:064}")
        release.spec.parent = ArtifactRef(repository="digits/adapters", digest=f"sha256:{number:064}")
    opened = {"parents": frozenset({"v3"})}
    assert going(history(make, [], releases, **opened))["releases"] == ["v1", "v4"]


def test_people_keep_releases_and_the_start_of_a_federation(make: Make) -> None:
    releases = [make.release(), *(of_round(make, n) for n in range(1, 8))]
    releases[1].metadata.annotations = KEEP["annotations"]
    assert going(history(make, [], releases))["releases"] == ["v2", "v3", "v4"]


def test_copies_go_with_their_release_but_for_the_champion_and_the_one_before_it(make: Make) -> None:
    """A site-a that adopted v1 and v2 and nothing since; a site-b that adopted all of them."""
    hub = [of_round(make, n) for n in range(1, 8)]
    late = [
        of_round(make, 1, "site-a", Adopted="True:Adopted"),
        of_round(make, 2, "site-a", Adopted="True:Adopted"),
        of_round(make, 3, "site-a", Adopted="False:Regression"),
    ]
    prompt = [of_round(make, n, "site-b", Adopted="True:Adopted") for n in range(1, 8)]
    found = going(history(make, [], [*hub, *late, *prompt]))
    # Its release stays as long as a site uses it, and the other sites' copies of it with it.
    assert found["releases"] == ["v3", "v4"]
    assert found["copies"] == ["site-a/v3", "site-b/v3", "site-b/v4"]


def test_one_site_cannot_keep_every_release_by_calling_them_all_its_champion(make: Make) -> None:
    hub = [of_round(make, n) for n in range(1, 8)]
    liar = [of_round(make, n, "site-a", Adopted="True:Adopted") for n in range(1, 8)]
    assert going(history(make, [], [*hub, *liar]))["releases"] == ["v1", "v2", "v3", "v4"]


def test_a_copy_whose_release_is_gone_goes_unless_it_is_used_or_another_hubs(make: Make) -> None:
    foreign = of_round(make, 1, "site-c")
    foreign.spec.round_ref = RoundRef(name="r1", namespace="other-hub", uid="uid-1")
    copies = [
        of_round(make, 1, "evaluator", Evaluated="False:Rejected"),
        of_round(make, 1, "site-a", Adopted="False:Regression"),
        foreign,
    ]
    assert going(history(make, [], copies))["copies"] == ["evaluator/v1", "site-a/v1"]
    used = of_round(make, 1, "site-b", Adopted="True:Adopted")
    assert going(history(make, [], [*copies, used]))["copies"] == []


def test_what_is_not_approved_is_its_rounds_to_delete(make: Make) -> None:
    rounds = [past(make, n, reason="NotApproved") for n in range(8)]
    releases = [of_round(make, n, Approved="False:Rejected") for n in range(1, 8)]
    found = going(history(make, rounds, releases))
    assert found["releases"] == []
    assert found["rounds"] == ["r0", "r1", "r2", "r3", "r4"]


def test_everything_that_living_objects_name_is_named(make: Make) -> None:
    digests = iter(f"sha256:{n:064x}" for n in range(100))

    def ref() -> dict[str, str]:
        return {"repository": "digits/x", "digest": next(digests)}

    aggregate = {"report": ref(), "adapter": ref(), "lineage": ref()}
    contract = {"artifact": ref(), "sha256": next(digests), "contractedTime": make.now}
    round_ = make.round({"contract": contract, "aggregate": aggregate})
    figures = dict.fromkeys(("parentPpm", "candidatePpm", "candidateLowPpm", "candidateHighPpm"), 1)
    release = Release.model_validate(
        {
            "metadata": {"name": "v1", "namespace": "concordat"},
            "spec": {
                **{"federation": "digits", "sequence": 0},
                **{name: ref() for name in ("base", "adapter", "parent", "lineage")},
            },
            "status": {
                "lineage": ref(),
                "decision": {"statement": ref(), "evaluation": {"examples": 1, **figures}},
            },
        }
    )
    site = champion(make)["sites"][0]
    named = named_digests([round_], [release], [site])
    wanted = {f"sha256:{n:064x}" for n in (*range(4), *range(5, 11))} | {REF["digest"]}
    # Number 4 is the contract's own digest, which is no artifact's.
    unnamed = f"sha256:{3:064x}" if contract["sha256"] == f"sha256:{3:064x}" else f"sha256:{4:064x}"
    assert named >= wanted - {unnamed}
    assert unnamed not in named


@pytest.mark.parametrize(
    ("taken", "seconds"), [(None, 1.0), (-60, 1.0), (0, 1.0), (8, 2.0), (100, 25.0), (86_400, 60.0)]
)
def test_a_round_that_cannot_go_is_looked_at_less_and_less(make: Make, taken: int | None, seconds: float) -> None:
    """Finding 33: what does not go away was asked to go every second."""
    deleted = None if taken is None else make.now - timedelta(seconds=taken)
    assert pause(deleted, make.now) == seconds
