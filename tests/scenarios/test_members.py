"""Who takes part is decided in the hub's namespace (security findings F4, F14)."""

from __future__ import annotations

import pytest

from concordat.api import Membership, Site
from concordat.statements import SigningKey
from tests.scenarios.federation import Federation
from tests.scenarios.view import EVALUATOR
from tests.support.presence import condition, present


def ready(federation: Federation, short: str) -> tuple[str, str]:
    """Status and reason of a Site's Ready."""
    name = federation.name(short)
    found = condition(present(federation.cache.get(Site, name, name)).status.conditions, "Ready")
    return (found.status.value, found.reason)


def ended(federation: Federation, name: str) -> tuple[str, str]:
    """Status and reason of Succeeded."""
    found = condition(federation.found(name).status.conditions, "Succeeded")
    return (found.status.value, found.reason)


@pytest.mark.attack("F4: an evaluator that nobody accepted", "hub, selection", "NotAMember")
async def test_a_site_that_nobody_accepted_takes_no_part(federation: Federation) -> None:
    """By the right to create a Site alone: not as a trainer, and not as the evaluator, first by name as it may be."""
    await federation.join("aaa", role="Evaluator", member=False)
    await federation.join("site-0", member=False)
    await federation.settle()
    assert [ready(federation, short) for short in ("aaa", "site-0")] == [("False", "NotAMember")] * 2
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.name("site-0") not in [site.name for site in (await federation.contract("r1")).sites]
    assert set(federation.copies(federation.released("r1"))) >= {EVALUATOR}
    assert "aaa" not in federation.copies(federation.released("r1"))


async def test_a_suspended_member_is_not_asked_until_it_is_one_again(federation: Federation) -> None:
    await federation.patch("memberships", federation.name("site-b"), {"suspended": True})
    await federation.settle()
    assert ready(federation, "site-b") == ("False", "MembershipSuspended")
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert "site-b" not in federation.updates("r1")
    await federation.patch("memberships", federation.name("site-b"), {"suspended": False})
    await federation.settle()
    await federation.round("r2")
    await federation.settle()
    assert "site-b" in federation.updates("r2")


async def test_a_round_under_way_ends_with_the_key_that_its_contract_names(federation: Federation) -> None:
    """Finding F14: a site gets a new key without missing a round."""
    federation.held = {federation.name("site-a")}
    await federation.round("r1")
    await federation.settle()
    old, new = federation.site_keys["site-a"], SigningKey.generate()
    federation.rotate("site-a", new)
    await federation.settle()
    assert ready(federation, "site-a") == ("True", "Heartbeat")
    await federation.accept("site-a")
    federation.held = set()
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert condition(federation.updates("r1")["site-a"].status.conditions, "Verified").is_true
    assert await federation.champion("site-a") == federation.released("r1")
    membership = present(federation.cache.get(Membership, federation.hub_space, federation.name("site-a")))
    assert [key.not_after is None for key in membership.spec.keys] == [True, False]
    await federation.round("r2")
    await federation.settle()
    assert ended(federation, "r2") == ("True", "Released")
    named = {site.name: site.key_thumbprint for site in (await federation.contract("r2")).sites}
    assert named[federation.name("site-a")] == new.public.thumbprint != old.public.thumbprint


@pytest.mark.attack("F14: a new key without the old one", "hub, Membership", "KeyChanged")
async def test_a_key_that_the_hub_did_not_accept_ends_nothing(federation: Federation) -> None:
    """A new state volume: the site is not asked until its people have been."""
    federation.rotate("site-a", SigningKey.generate(), keep=False)
    await federation.settle()
    assert ready(federation, "site-a") == ("False", "KeyChanged")
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert "site-a" not in federation.updates("r1")
