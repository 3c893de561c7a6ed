"""`concordat site accept`: from what an agent shows to a Membership."""

from __future__ import annotations

from datetime import timedelta

import pytest

from concordat.api import Membership, Role, Site
from concordat.statements import SigningKey
from concordat_agent.keyring import Keyring
from concordat_cli.enrolment import OVERLAP, manifest, membership, request
from concordat_cli.errors import UserError
from tests.support.hub import NOW, Make

OLD, NEW = SigningKey.generate(), SigningKey.generate()


def showing(*keys: SigningKey, role: str = "Trainer") -> Site:
    """A Site whose agent holds these keys, the newest first."""
    site = Make().site("site-a", role=role)
    assert site.status.agent is not None
    site.status.agent.key, *before = Keyring(*keys).shown("site-a", site.metadata.uid)
    site.status.agent.previous_key = before[0] if before else None
    return site


def accepted(site: Site, present: Membership | None = None, replace: bool = False, hours: int = 0) -> Membership:
    now = NOW + timedelta(hours=hours)
    return membership(request(site), "concordat", present, now, role=Role(site.spec.role), replace=replace)


def keys(found: Membership) -> list[tuple[str, bool]]:
    return [(key.public_key, key.not_after is not None) for key in found.spec.keys]


def test_a_new_site_becomes_a_member_with_what_it_asks_for() -> None:
    found = accepted(showing(OLD))
    assert found.metadata.name == "site-a"
    assert found.metadata.namespace == "concordat"
    assert found.spec.role is Role.TRAINER
    assert found.spec.federations == ["digits"]
    assert keys(found) == [(OLD.public.to_pem(), False)]
    assert Membership.model_validate(manifest(found)).spec == found.spec
    only = membership(request(showing(OLD)), "concordat", None, NOW, federations=("letters",))
    assert only.spec.federations == ["letters"]


def test_an_evaluator_is_not_accepted_unless_that_is_said() -> None:
    site = showing(OLD, role="Evaluator")
    with pytest.raises(UserError, match="--role Evaluator"):
        membership(request(site), "concordat", None, NOW)
    assert membership(request(site), "concordat", None, NOW, role=Role.EVALUATOR).spec.role is Role.EVALUATOR


def test_a_key_is_replaced_by_the_next_which_it_endorses() -> None:
    """Security finding F14: the key before counts a while longer, so that a round under way can end with it."""
    first = accepted(showing(OLD))
    second = accepted(showing(NEW, OLD), first)
    assert keys(second) == [(NEW.public.to_pem(), False), (OLD.public.to_pem(), True)]
    assert second.spec.keys[1].not_after == NOW + OVERLAP
    assert accepted(showing(NEW, OLD), second) == second
    third = accepted(showing(SigningKey.generate(), NEW), second, hours=1)
    assert [ends for _, ends in keys(third)] == [False, True, True]
    assert third.spec.keys[2].not_after == NOW + OVERLAP
    late = accepted(showing(SigningKey.generate(), NEW), second, hours=24 * 8)
    assert len(late.spec.keys) == 2


@pytest.mark.attack("F14: a key that the one before does not endorse", "concordat site accept", "--replace")
def test_a_key_that_nobody_endorses_is_taken_only_in_place_of_the_one_before() -> None:
    first = accepted(showing(OLD))
    for site in (showing(NEW), showing(NEW, SigningKey.generate())):
        with pytest.raises(UserError, match="--replace"):
            accepted(site, first)
        assert keys(accepted(site, first, replace=True)) == [(NEW.public.to_pem(), False)]


def test_a_membership_with_garbage_is_told() -> None:
    first = accepted(showing(OLD))
    first.spec.keys[0].public_key = "garbage"
    with pytest.raises(UserError, match="Membership site-a names a key that is none"):
        accepted(showing(NEW, OLD), first)


def test_a_key_that_ceased_to_count_endorses_nothing() -> None:
    first = accepted(showing(OLD))
    first.spec.keys[0].not_after = NOW
    with pytest.raises(UserError, match="not endorsed"):
        accepted(showing(NEW, OLD), first)


@pytest.mark.attack("F4: a key that the site does not hold", "concordat site accept", "refused")
def test_a_key_whose_possession_is_not_proved_is_refused() -> None:
    site = showing(OLD)
    site.metadata.uid = "another"
    with pytest.raises(UserError, match="does not prove"):
        request(site)
    site.status.agent = None
    with pytest.raises(UserError, match="not shown a key yet"):
        request(site)
