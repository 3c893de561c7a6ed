"""Which release reaches which site: a pinned channel, a second channel, and a pin to an earlier release."""

from __future__ import annotations

from concordat.api import ConditionType, is_true
from tests.scenarios.federation import Federation
from tests.support.presence import condition


async def released(federation: Federation, name: str) -> str:
    """Run a round to its end and return the name of its release."""
    federation.clock.advance(1)
    await federation.round(name, parent={"releaseRef": {"name": "digits-0"}})
    await federation.settle()
    release = federation.released(name)
    assert is_true(federation.copies(release)["hub"].status.conditions, ConditionType.APPROVED)
    return release


async def ready(federation: Federation, channel: str) -> tuple[str, str, str]:
    """Status, reason and message of a channel's condition Ready."""
    found = condition(federation.channel(channel).status.conditions, "Ready")
    return (found.status.value, found.reason, found.message)


async def test_a_pin_holds_its_sites_while_a_second_channel_goes_on_and_a_pin_back_is_told(
    federation: Federation,
) -> None:
    await federation.create("ReleaseChannel", "early", {"federation": "digits", "follow": "Approved"})
    await federation.join("site-e", channel="early")
    await federation.settle()
    first = await released(federation, "r1")
    assert {await federation.champion(s) for s in ("site-a", "site-b", "site-c", "site-d", "site-e")} == {first}

    await federation.patch("releasechannels", "stable", {"release": first, "follow": None})
    await federation.settle()
    second = await released(federation, "r2")
    assert set(federation.copies(second)) == {"hub", "evaluator", "site-e"}
    assert await federation.champion("site-a") == first
    assert await federation.champion("site-e") == second
    assert (await ready(federation, "stable"))[:2] == ("True", "RolledOut")
    assert federation.channel("stable").status.summary == "4 use it, 0 rejected, of 4"
    assert federation.channel("early").status.summary == "1 use it, 0 rejected, of 1"

    await federation.patch("releasechannels", "stable", {"release": second})
    await federation.settle()
    assert (await ready(federation, "stable"))[:2] == ("True", "RolledOut")
    assert await federation.champion("site-a") == second

    await federation.patch("releasechannels", "stable", {"release": first})
    await federation.settle()
    status, reason, message = await ready(federation, "stable")
    assert (status, reason) == ("False", "CannotRollBack")
    assert federation.name("site-a") in message
    assert federation.channel("stable").status.summary == "0 use it, 0 rejected, of 4"
    assert await federation.champion("site-a") == second
