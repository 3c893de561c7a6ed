"""A Site, as the hub sees it: whether it is a member, and whether the agent is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from concordat.api import Condition, ConditionSet, ConditionType, Reason, Site, find
from concordat.api.site import SiteStatus
from concordat.protocol.locations import AGENT_LEASE
from concordat_operator.finding import Finding
from concordat_operator.members.plan import Member, accepted
from concordat_operator.text import count, until

HEARTBEAT_TIMEOUT = timedelta(seconds=90)
"""How long an agent may be silent."""
OUTAGE_PATIENCE = timedelta(minutes=15)
"""How long most agents may be silent while others are heard, before they are taken to be gone after all."""
MAX_SKEW = timedelta(seconds=30)
"""By how much an agent's clock may differ before that is shown: far more than a heartbeat takes to arrive."""
REQUEUE_SECONDS = 30.0
"""Until a site that is not heard, or was just about lost, is looked at again."""
CONDITIONS = (ConditionType.ACCEPTED, ConditionType.READY, ConditionType.QUARANTINED, ConditionType.CLOCK_SKEW)
"""The conditions of a Site; all are the operator's."""


@dataclass(frozen=True)
class Presence:
    """What the hub knows of an agent's heartbeat, by the hub's own clock."""

    silence: timedelta
    """How long ago the agent's Lease was last seen to change."""
    at: datetime
    """When that was."""
    fresh: bool = True
    """Whether it was seen to change; False where this process only found it, and cannot tell how old it is."""
    skew: timedelta = timedelta(0)
    """How far the agent's clock is ahead of the hub's."""
    silences: tuple[timedelta, ...] = ()
    """How long each agent whose Site is shown as Ready has been silent, this one included."""


def status(
    site: Site, member: Member | Finding, presence: Presence | None, quarantined: str | None, now: datetime
) -> SiteStatus:
    """Return the operator's part of the status.

    `member` is what the hub takes the site for, or why for none; `presence` is None if the agent has no heartbeat;
    `quarantined` is why the site is quarantined and what ends it.
    """
    conditions = ConditionSet(site.status.conditions, site.metadata.generation, now)
    if isinstance(member, Finding):
        conditions.set(ConditionType.ACCEPTED, False, member.reason, member.message)
    else:
        conditions.set(ConditionType.ACCEPTED, True, Reason.ACCEPTED, accepted(member))
    heard = heartbeat(presence, find(site.status.conditions, ConditionType.READY))
    if isinstance(member, Finding):
        conditions.set(ConditionType.READY, False, member.reason, member.message)
    else:
        conditions.set(ConditionType.READY, heard.reason is not Reason.HEARTBEAT_LOST, heard.reason, heard.message)
    conditions.drop(ConditionType.CLOCK_SKEW)
    if presence is not None and abs(presence.skew) > MAX_SKEW:
        conditions.set(ConditionType.CLOCK_SKEW, True, Reason.CLOCK_SKEW, _skewed(presence.skew))
    conditions.drop(ConditionType.QUARANTINED)
    if quarantined is not None:
        conditions.set(ConditionType.QUARANTINED, True, Reason.POISONING_ALERT, quarantined)
    key = None if isinstance(member, Finding) else member.key
    return SiteStatus(observed_generation=site.metadata.generation, conditions=conditions.list(), accepted_key=key)


def heartbeat(presence: Presence | None, shown: Condition | None) -> Finding:
    """Return whether the agent is there: Heartbeat, OutageAssumed or HeartbeatLost. `shown` is the Ready condition."""
    if presence is None:
        return Finding(Reason.HEARTBEAT_LOST, f"The agent has not renewed its Lease {AGENT_LEASE} yet.")
    if not presence.fresh and shown is not None and shown.reason == Reason.HEARTBEAT_LOST:
        # Lost before this process began to listen: only a new heartbeat brings it back.
        return Finding(Reason.HEARTBEAT_LOST, shown.message)
    if presence.silence <= HEARTBEAT_TIMEOUT:
        return Finding(Reason.HEARTBEAT, "The agent's key is accepted and its heartbeat is fresh.")
    last = f"The agent was last heard from at {until(presence.at)}"
    shown_ready = shown is not None and shown.is_true
    if shown_ready and outage(presence.silences) and _bearable(presence):
        return Finding(
            Reason.OUTAGE_ASSUMED,
            f"{last}; most agents fell silent with it, as when the API server or the network is out, so the site still "
            "counts as Ready.",
        )
    return Finding(
        Reason.HEARTBEAT_LOST,
        f"{last}, more than {HEARTBEAT_TIMEOUT.total_seconds():.0f} seconds ago: see whether its pod runs.",
    )


def outage(silences: Sequence[timedelta]) -> bool:
    """Return whether most of at least three agents have been silent for longer than a heartbeat takes.

    Half the timeout: those that fall silent together reach the whole of it one after the other.
    """
    quiet = sum(silence > HEARTBEAT_TIMEOUT / 2 for silence in silences)
    return len(silences) >= 3 and 2 * quiet > len(silences)


def _bearable(presence: Presence) -> bool:
    """Return whether an outage may still be assumed: as long as nobody is heard, else for a while."""
    return presence.silence <= OUTAGE_PATIENCE or min(presence.silences) > HEARTBEAT_TIMEOUT / 2


def _skewed(skew: timedelta) -> str:
    minutes = max(1, round(abs(skew) / timedelta(minutes=1)))
    way = "ahead of" if skew > timedelta(0) else "behind"
    return (
        f"The clock of the site's node is about {count(minutes, 'minute')} {way} the hub's, so that deadlines come at "
        "different times on the two sides: synchronize both clocks (NTP)."
    )
