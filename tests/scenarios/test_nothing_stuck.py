"""One site never stops the others, and every round ends, with a reason."""

from __future__ import annotations

from datetime import timedelta

import pytest

from concordat.api import ConditionType, FederationRound, Site, Update, is_true
from concordat.controller import SECRET
from concordat.statements import SigningKey, StatementError
from concordat_operator.keys import SECRET_NAME, Keys
from tests.scenarios.faults import forbids
from tests.scenarios.federation import Federation
from tests.support.presence import condition, present


def ended(federation: Federation, name: str) -> tuple[str, str]:
    """Status and reason of Succeeded."""
    found = condition(federation.found(name).status.conditions, "Succeeded")
    return (found.status.value, found.reason)


async def test_a_site_that_cannot_be_asked_is_named_and_the_others_go_on(federation: Federation) -> None:
    """Finding 22: nobody is told "no answer" of a site that was never asked."""
    site = federation.name("site-b")
    federation.cluster.before = forbids("POST", site, "updates")
    await federation.round("r1")
    await federation.settle()
    waits = condition(federation.found("r1").status.conditions, "UpdatesCollected")
    assert f"{site} could not be asked" in waits.message
    assert f"cannot POST updates in {site}" in waits.message
    federation.clock.advance(301)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    (gone,) = federation.found("r1").status.dropped_sites
    assert (gone.site, gone.step, gone.reason) == (site, "Requested", "NotAllowed")
    assert f"cannot POST updates in {site}" in gone.message


async def test_a_site_that_is_uninstalled_at_any_moment_hurts_nobody(federation: Federation) -> None:
    """Its namespace goes with all that is in it, while it trains."""
    site = federation.name("site-b")
    federation.held = {site}
    await federation.round("r1")
    await federation.settle()
    await federation.uninstall("site-b")
    federation.clock.advance(3601)
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    (gone,) = federation.found("r1").status.dropped_sites
    assert (gone.site, gone.step) == (site, "Requested")


async def test_a_suspended_round_says_which_deadline_will_fail_it(federation: Federation) -> None:
    """Finding 10: the contract's deadlines go on."""
    federation.held = {federation.name(s) for s in ("site-a", "site-b", "site-c", "site-d")}
    await federation.round("r1")
    await federation.settle()
    deadline = (await federation.contract("r1")).submission_deadline
    await federation.patch("federationrounds", "r1", {"suspend": True})
    await federation.settle()
    paused = condition(federation.found("r1").status.conditions, "Suspended")
    assert f"{deadline:%Y-%m-%d %H:%MZ}" in paused.message
    assert "fails" in paused.message


async def test_a_round_can_be_given_more_time(federation: Federation) -> None:
    """Finding 10: later deadlines, signed by the hub, and only by the hub."""
    sites = {federation.name(s) for s in ("site-a", "site-b", "site-c", "site-d")}
    federation.held = sites
    await federation.round("r1")
    await federation.settle()
    await federation.patch("federationrounds", "r1", {"suspend": True, "extendDeadlines": {"submissionSeconds": 7200}})
    await federation.settle()
    contract, later = await federation.contract("r1"), present(federation.found("r1").status.extension)
    assert later.submission_deadline == contract.opens + timedelta(seconds=7200)
    assert later.consent_deadline == contract.consent_deadline
    federation.clock.advance(5000)
    await federation.patch("federationrounds", "r1", {"suspend": False})
    await federation.settle()
    assert present(federation.found("r1").status.counts).out == 0
    federation.held = set()
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.found("r1").status.summary == "4/4 verified"


async def test_an_ended_round_stays_as_it_ended_whatever_is_lost_and_touched(federation: Federation) -> None:
    """Finding 24: spec.suspend on a round that succeeded makes no Stalled of it."""
    await federation.round("r1")
    await federation.settle()
    before = federation.found("r1").status
    await federation.registry.delete(present(before.contract).artifact)
    await federation.start_operator()
    await federation.patch("federationrounds", "r1", {"suspend": True})
    await federation.settle()
    after = federation.found("r1")
    assert is_true(after.status.conditions, ConditionType.READY)
    assert after.status.phase == "Succeeded"
    assert after.status.observed_generation == after.metadata.generation
    assert (after.status.counts, after.status.release) == (before.counts, before.release)


async def test_a_round_whose_contract_is_lost_ends_when_its_time_is_over(federation: Federation) -> None:
    """Nothing is Stalled for ever."""
    federation.held = {federation.name("site-d")}
    await federation.round("r1")
    await federation.settle()
    await federation.registry.delete(present(federation.found("r1").status.contract).artifact)
    await federation.start_operator()
    await federation.settle()
    assert condition(federation.found("r1").status.conditions, "Stalled").reason == "ArtifactUnreadable"
    federation.clock.advance(24 * 3600)
    await federation.settle()
    assert ended(federation, "r1") == ("False", "ArtifactUnreadable")


async def test_a_deleted_update_is_asked_for_again(federation: Federation) -> None:
    """An Update that somebody deletes while its site trains."""
    federation.held = {federation.name("site-b")}
    await federation.round("r1")
    await federation.settle()
    update = federation.updates("r1")["site-b"]
    await federation.admin.delete(Update, *update.key)
    federation.held = set()
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert federation.found("r1").status.summary == "4/4 verified"


async def test_a_deleted_site_ends_in_a_reason(federation: Federation) -> None:
    """Finding 23: the Site object goes while its site trains; the round does not wait in silence."""
    name = federation.name("site-b")
    await federation.admin.delete(Site, name, name)
    await federation.settle()
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    assert isinstance(federation.found("r1"), FederationRound)


async def test_the_secret_with_the_keys_is_deleted_while_the_operator_runs(federation: Federation) -> None:
    """It is made again from memory before anything is signed, so the next process goes on with the same keys."""
    space, before = federation.hub_space, federation.keys
    await federation.admin.delete(SECRET, space, SECRET_NAME)
    await federation.round("r1")
    await federation.settle()
    await federation.start_operator()
    assert federation.keys.contract.public == before.contract.public
    assert ended(federation, "r1") == ("True", "Released")


async def test_an_operator_without_its_keys_does_not_start_with_others(federation: Federation) -> None:
    """Sites have pinned the old ones: fail closed, with the remedy."""
    await federation.admin.delete(SECRET, federation.hub_space, SECRET_NAME)
    with pytest.raises(StatementError, match="restore the Secret from a backup"):
        await federation.start_operator()


async def test_other_keys_in_the_secret_sign_nothing(federation: Federation) -> None:
    """A Secret that was replaced under a running operator."""
    federation.hub_keys(Keys(SigningKey.generate(), SigningKey.generate(), gateway=federation.keys.gateway))
    await federation.round("r1")
    await federation.settle()
    stalled = condition(federation.found("r1").status.conditions, "Stalled")
    assert stalled.reason == "Invalid"
    assert "holds other keys" in stalled.message


async def test_two_sites_with_one_key_do_not_stop_the_round(federation: Federation) -> None:
    """Finding 1: a cloned namespace, or a site that shows another's public key."""
    await federation.join("site-e", key_of="site-a")
    await federation.settle()
    await federation.round("r1")
    await federation.settle()
    assert ended(federation, "r1") == ("True", "Released")
    names = [site.name for site in (await federation.contract("r1")).sites]
    assert federation.name("site-e") not in names
    assert federation.name("site-a") in names
    site = present(federation.cache.get(Site, federation.name("site-e"), federation.name("site-e")))
    accepted = condition(site.status.conditions, "Accepted")
    assert (accepted.status.value, accepted.reason) == ("False", "KeyInUse")
    assert federation.name("site-a") in accepted.message
