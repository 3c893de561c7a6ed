"""Which agents are there: by the hub's own clock, whatever the sites' clocks say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from concordat.api import ConditionType, Reason, find
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.controller import LEASE, Cache, FixedClock
from concordat.protocol.locations import AGENT_LEASE
from concordat_operator.sites import plan
from concordat_operator.sites.heartbeats import Heartbeats
from tests.support.hub import Make
from tests.support.presence import condition, present

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
S = timedelta(seconds=1)


class Agents:
    """The Leases that agents write, by clocks of their own, and what an operator saw of them."""

    def __init__(self) -> None:
        self.cache, self.clock, self.version = Cache(), FixedClock(NOON), 0
        self.cache.watch([LEASE])
        self.heartbeats = Heartbeats(self.cache, self.clock)

    def beat(self, site: str, ahead: float = 0) -> None:
        self.version += 1
        metadata = {"name": AGENT_LEASE, "namespace": site, "labels": {LABEL_MANAGED_BY: MANAGED_BY}}
        renewed = (self.clock.now() + timedelta(seconds=ahead)).isoformat()
        self.cache.feed(
            {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {**metadata, "uid": site, "resourceVersion": str(self.version)},
                "spec": {"renewTime": renewed},
            }
        )

    def live(self, seconds: int, *sites: str, ahead: float = 0) -> None:
        """Let time pass in which these agents renew every twenty seconds."""
        for _ in range(seconds // 20):
            self.clock.advance(20)
            for site in sites:
                self.beat(site, ahead)

    def silence(self, site: str) -> float:
        self.heartbeats.of(site)
        return self.heartbeats.silence(site).total_seconds()


@pytest.mark.parametrize("ahead", [-91, 3600, 0])
def test_a_wrong_clock_neither_loses_an_agent_nor_keeps_a_dead_one(ahead: float) -> None:
    """Finding 16."""
    agents = Agents()
    assert agents.heartbeats.of("site-a") is None
    agents.live(200, "site-a", ahead=ahead)
    assert agents.silence("site-a") == 0
    assert present(agents.heartbeats.of("site-a")).skew.total_seconds() == ahead
    agents.clock.advance(91)
    assert agents.silence("site-a") == 91


def test_heartbeats_that_arrive_late_are_no_wrong_clock() -> None:
    """A hub of a thousand sites is told of some a minute later: the clock seems behind, and is right."""
    agents = Agents()
    agents.live(20, "site-a", ahead=-70)
    agents.live(20, "site-a", ahead=-2)
    assert present(agents.heartbeats.of("site-a")).skew == timedelta(0)
    agents.live(60, "site-a", ahead=-70)
    assert present(agents.heartbeats.of("site-a")).skew == timedelta(seconds=-2)


def test_setting_the_hubs_clock_loses_nobody() -> None:
    """Finding 16."""
    agents = Agents()
    agents.live(60, "site-a")
    agents.clock.jump(7200)
    assert agents.silence("site-a") == 0
    agents.clock.advance(20)
    agents.beat("site-a")
    assert present(agents.heartbeats.of("site-a")).skew == timedelta(0)


def test_a_fresh_operator_knows_nothing_yet() -> None:
    """What it finds may be old: it says so, and counts from when it looked."""
    agents = Agents()
    agents.live(60, "site-a")
    agents.clock.advance(1000)
    agents.heartbeats = Heartbeats(agents.cache, agents.clock)
    found = present(agents.heartbeats.of("site-a"))
    assert (found.fresh, agents.silence("site-a")) == (False, 0)
    agents.live(20, "site-a")
    assert present(agents.heartbeats.of("site-a")).fresh


def test_the_first_heartbeat_of_a_new_site_counts_at_once() -> None:
    agents = Agents()
    assert agents.heartbeats.of("site-a") is None
    agents.beat("site-a")
    assert present(agents.heartbeats.of("site-a")).fresh


def test_after_a_time_in_which_nobody_was_heard_everybody_gets_the_whole_timeout() -> None:
    """Finding 32: the API server was away for ten minutes, and the first agent is back."""
    agents = Agents()
    sites = ("site-a", "site-b", "site-c")
    for site in sites:
        assert agents.heartbeats.of(site) is None
    agents.live(60, *sites)
    agents.clock.advance(600)
    agents.beat("site-a")
    assert [agents.silence(site) for site in sites] == [0, 0, 0]
    agents.live(80, "site-a", "site-b")
    assert agents.silence("site-c") == 80


MANY = {
    "one of five is silent": ((100, 5, 5, 5, 5), Reason.HEARTBEAT_LOST),
    "two of five are": ((100, 100, 5, 5, 5), Reason.HEARTBEAT_LOST),
    "three of five are": ((100, 100, 95, 5, 5), Reason.OUTAGE_ASSUMED),
    "the others follow": ((91, 80, 75, 72, 71), Reason.OUTAGE_ASSUMED),
    "most were heard within half the timeout": ((91, 45, 45, 45, 45), Reason.HEARTBEAT_LOST),
    "two of two are": ((100, 100), Reason.HEARTBEAT_LOST),
    "it was not": ((90, 100, 100, 100, 100), Reason.HEARTBEAT),
    "most are for a quarter of an hour": ((901, 901, 901, 5, 5), Reason.HEARTBEAT_LOST),
    "all are for hours": ((9000, 9000, 9000, 9000, 9000), Reason.OUTAGE_ASSUMED),
}


@pytest.mark.parametrize(("silences", "reason"), MANY.values(), ids=MANY)
def test_an_outage_does_not_empty_the_federation(make: Make, silences: tuple[int, ...], reason: Reason) -> None:
    """Finding 32: as zone disruption in Kubernetes' node lifecycle."""
    presence = plan.Presence(silences[0] * S, NOON, silences=tuple(silence * S for silence in silences))
    found = plan.status(make.site("site-a"), make.members()["site-a"], presence, None, make.now)
    ready = condition(found.conditions, "Ready")
    assert (ready.reason, ready.is_true) == (reason.value, reason is not Reason.HEARTBEAT_LOST)


def test_a_site_that_was_lost_is_not_brought_back_by_an_outage_or_a_restart(make: Make) -> None:
    site = make.site("site-a", {"Ready": "False:HeartbeatLost"})
    silent = plan.Presence(100 * S, NOON, silences=(100 * S,) * 5)
    found_at_the_start = plan.Presence(0 * S, NOON, fresh=False)
    heard = plan.Presence(0 * S, NOON)
    for presence, reason in ((silent, "HeartbeatLost"), (found_at_the_start, "HeartbeatLost"), (heard, "Heartbeat")):
        found = plan.status(site, make.members()["site-a"], presence, None, make.now)
        assert condition(found.conditions, "Ready").reason == reason


@pytest.mark.parametrize(
    ("seconds", "words"), [(30, None), (31, "about 1 minute ahead of"), (-91, "about 2 minutes behind"), (0, None)]
)
def test_a_wrong_clock_is_shown_while_it_is_wrong(make: Make, seconds: int, words: str | None) -> None:
    """Finding 16."""
    presence = plan.Presence(0 * S, NOON, skew=seconds * S)
    site, member = make.site("site-a", {"ClockSkew": "True"}), make.members()["site-a"]
    status: Any = plan.status(site, member, presence, None, make.now)
    shown = find(status.conditions, ConditionType.CLOCK_SKEW)
    if words is None:
        assert shown is None
    else:
        assert words in present(shown).message
    assert condition(status.conditions, "Ready").is_true
