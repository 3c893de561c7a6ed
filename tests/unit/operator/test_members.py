"""Whose word counts: Memberships against what agents show and prove (security findings F4, F14)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from concordat.api import Membership, Site
from concordat.controller import Cache
from concordat.statements import SigningKey
from concordat_operator.finding import Finding
from concordat_operator.members import plan
from concordat_operator.members.index import Members
from concordat_operator.members.plan import Member
from tests.support.hub import Make
from tests.support.presence import condition

NEXT = SigningKey.generate()


def showing(make: Make, *keys: dict[str, str], name: str = "site-a") -> Site:
    """A Site whose agent shows these keys."""
    wire = make.site(name).wire()
    wire["status"]["agent"] |= dict(zip(("key", "previousKey"), keys, strict=False))
    return Site.model_validate(wire)


def named(key: SigningKey, **term: Any) -> dict[str, Any]:
    """An entry of `keys`."""
    return {"publicKey": key.public.to_pem(), **term}


def reason(found: Member | Finding) -> str:
    return found.reason if isinstance(found, Finding) else "Accepted"


def test_a_member_is_accepted_by_the_newest_key_that_it_shows_and_its_membership_names(make: Make) -> None:
    old, new = make.shown("site-a"), make.shown("site-a", NEXT)
    both = make.membership("site-a", keys=[named(NEXT), {"publicKey": make.key.to_pem()}])
    for shown, membership, expected in (
        ([old], make.membership("site-a"), make.key),
        ([new, old], make.membership("site-a"), make.key),
        ([new, old], both, NEXT.public),
        ([old], both, make.key),
    ):
        found = plan.judge(showing(make, *shown), membership, None, make.now)
        assert isinstance(found, Member)
        assert found.key.thumbprint == expected.thumbprint
        assert found.federations == {"digits"}


@pytest.mark.parametrize(
    ("membership", "shown", "expected"),
    [
        (None, "own", "NotAMember"),
        (None, "nothing", "NoKey"),
        ({"suspended": True}, "own", "MembershipSuspended"),
        ({"role": "Evaluator"}, "own", "RoleMismatch"),
        ({}, "next", "KeyChanged"),
        ({}, "nothing", "NoKey"),
        ({}, "proof of another site", "KeyPossessionNotProved"),
        ({}, "proof by another key", "KeyPossessionNotProved"),
        ({}, "garbage", "KeyPossessionNotProved"),
        ({"before": 1}, "own", "KeyExpired"),
        ({"after": 0}, "own", "KeyExpired"),
        ({"before": 0, "after": 1}, "own", "Accepted"),
    ],
)
@pytest.mark.attack("F4, F14: no Membership, or a wrong, expired or unproved key", "hub, Membership", "NotAMember …")
def test_a_site_is_no_member_without_its_key(
    make: Make, membership: dict[str, Any] | None, shown: str, expected: str
) -> None:
    own = make.shown("site-a")
    keys = {
        "own": own,
        "next": make.shown("site-a", NEXT),
        "proof of another site": {**own, "proof": make.shown("site-b")["proof"]},
        "proof by another key": {**own, "proof": make.shown("site-a", NEXT)["proof"]},
        "garbage": {"publicKey": "x", "proof": "x"},
    }
    site = make.site("site-a")
    site.status.agent = showing(make, keys[shown]).status.agent if shown in keys else None
    found = None
    if membership is not None:
        spec = dict(membership)
        term = {}
        if "before" in spec:
            term["notBefore"] = (make.now + timedelta(hours=spec.pop("before"))).isoformat()
        if "after" in spec:
            term["notAfter"] = (make.now + timedelta(hours=spec.pop("after"))).isoformat()
        if term:
            spec["keys"] = [{"publicKey": make.key.to_pem(), **term}]
        found = make.membership("site-a", **spec)
    judged = plan.judge(site, found, None, make.now)
    assert reason(judged) == expected
    if expected in ("NotAMember", "KeyChanged") and isinstance(judged, Finding):
        assert "concordat site accept site-a" in judged.message


def test_a_site_is_named_like_its_namespace(make: Make) -> None:
    site = make.site("site-a")
    site.metadata.namespace = "elsewhere"
    assert reason(plan.judge(site, make.membership("site-a"), None, make.now)) == "NameMismatch"


class World:
    """Memberships in a cache."""

    def __init__(self, make: Make, *hub_keys: SigningKey) -> None:
        self.make, self.cache, self.version = make, Cache(), 0
        self.cache.watch([Membership])
        self.members = Members(self.cache, "concordat", frozenset(key.public for key in hub_keys))

    def feed(self, name: str, *keys: SigningKey, minute: int = 0, namespace: str = "concordat", **spec: Any) -> None:
        self.version += 1
        membership = self.make.membership(name, keys=[named(key) for key in keys], **spec)
        made = (self.make.now + timedelta(minutes=minute)).isoformat()
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": name,
            "resourceVersion": str(self.version),
            "creationTimestamp": made,
        }
        self.cache.feed({**membership.wire(), "metadata": metadata})

    def of(self, name: str, *shown: SigningKey) -> str:
        keys = [self.make.shown(name, key) for key in shown]
        return reason(self.members.of(showing(self.make, *keys, name=name), self.make.now))


@pytest.mark.attack("F4: another member's key, or the hub's", "hub, Membership", "KeyInUse")
def test_no_two_members_share_a_key_and_none_has_the_hubs(make: Make) -> None:
    a, b, hub = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
    world = World(make, hub)
    world.feed("site-a", a, minute=1)
    world.feed("site-b", a, minute=0)
    world.feed("site-c", hub)
    world.feed("site-d", b, namespace="elsewhere")
    assert [world.of(name, a) for name in ("site-a", "site-b")] == ["KeyInUse", "Accepted"]
    assert world.of("site-c", hub) == "KeyInUse"
    assert world.of("site-d", b) == "NotAMember"
    assert world.members.concerned(world.make.membership("site-x", keys=[named(a)])) == {"site-a", "site-b", "site-x"}
    world.feed("site-b", b)
    assert [world.of("site-a", a), world.of("site-b", b)] == ["Accepted", "Accepted"]


def test_an_evaluators_key_is_the_evaluators(make: Make) -> None:
    """A trainer that was there longer cannot keep an evaluator from judging by showing its key."""
    key = SigningKey.generate()
    world = World(make)
    world.feed("site-a", key, minute=0)
    world.feed("evaluator", key, minute=5, role="Evaluator")
    assert world.of("site-a", key) == "KeyInUse"
    assert world.members.evaluators(make.now) == {"evaluator": (key.public,)}
    assert world.members.judges() == {"evaluator"}


def test_the_published_evaluators_are_members_with_a_key_that_counts(make: Make) -> None:
    first, second = SigningKey.generate(), SigningKey.generate()
    world = World(make)
    world.feed("e1", first, role="Evaluator", suspended=True)
    world.feed("e2", second, role="Evaluator")
    assert world.members.evaluators(make.now) == {"e2": (second.public,)}
    for number in range(20):
        world.feed(f"more-{number:02d}", SigningKey.generate(), role="Evaluator")
    assert len(world.members.evaluators(make.now)) == 16
    ends = (make.now + timedelta(days=7)).isoformat()
    rotating = make.membership("e3", role="Evaluator", keys=[named(first, notAfter=ends), named(second)])
    assert plan.keys_to_trust(rotating, make.now) == (first.public, second.public)
    assert plan.keys_to_trust(rotating, make.now + timedelta(days=8)) == (second.public,)


def test_a_membership_shows_what_the_hub_makes_of_it(make: Make) -> None:
    membership = make.membership("site-a")
    for found, status, why in (
        (None, "False", "SiteNotFound"),
        (Finding("KeyChanged", "Another."), "False", "KeyChanged"),
        (make.members()["site-a"], "True", "Accepted"),
    ):
        shown = plan.status(membership, found, make.now)
        ready = condition(shown.conditions, "Ready")
        assert (ready.status.value, ready.reason, shown.observed_generation) == (status, why, 1)
