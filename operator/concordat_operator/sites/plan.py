"""A Site, as the hub sees it: which key is accepted, and whether the agent is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from concordat.api import Condition, ConditionSet, ConditionType, Reason, Role, Site, find
from concordat.api.site import AcceptedKey, SiteStatus
from concordat.protocol.locations import AGENT_LEASE
from concordat.statements import PublicKey, StatementError
from concordat_operator.finding import Finding
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
    site: Site, presence: Presence | None, quarantined: str | None, now: datetime, owner: str | None = None
) -> SiteStatus:
    """Return the operator's part of the status.

    `presence` is None if the agent has no heartbeat; `quarantined` is why the site is quarantined and what ends it;
    `owner` is another site that has the same key by right.
    """
    conditions = ConditionSet(site.status.conditions, site.metadata.generation, now)
    key = accept(site, owner)
    if isinstance(key, Finding):
        conditions.set(ConditionType.ACCEPTED, False, key.reason, key.message)
    else:
        conditions.set(
            ConditionType.ACCEPTED, True, Reason.ACCEPTED, f"The hub accepts statements signed by {key.thumbprint}."
        )
    heard = heartbeat(presence, find(site.status.conditions, ConditionType.READY))
    if isinstance(key, Finding):
        conditions.set(ConditionType.READY, False, key.reason, key.message)
    else:
        conditions.set(ConditionType.READY, heard.reason is not Reason.HEARTBEAT_LOST, heard.reason, heard.message)
    conditions.drop(ConditionType.CLOCK_SKEW)
    if presence is not None and abs(presence.skew) > MAX_SKEW:
        conditions.set(ConditionType.CLOCK_SKEW, True, Reason.CLOCK_SKEW, _skewed(presence.skew))
    conditions.drop(ConditionType.QUARANTINED)
    if quarantined is not None:
        conditions.set(ConditionType.QUARANTINED, True, Reason.POISONING_ALERT, quarantined)
    pinned = site.status.accepted_key if isinstance(key, Finding) else key
    return SiteStatus(observed_generation=site.metadata.generation, conditions=conditions.list(), accepted_key=pinned)


def key_owner(site: Site, sites: Sequence[Site]) -> str | None:
    """Return the other site that has the key which this one shows or had accepted; None if it is this one's own.

    An evaluator's key is the evaluator's, else it is that of the site that is there longer.
    """
    keys = keys_of(site)
    return min((s.metadata.name for s in sites if _accepted(s) in keys and _rank(s) < _rank(site)), default=None)


def keys_of(site: Site) -> set[str]:
    """Return the keys that a site shows or had accepted, as PEM."""
    shown = site.status.agent.public_key.strip() if site.status.agent is not None else None
    return {key for key in (shown, _accepted(site)) if key is not None}


def _accepted(site: Site) -> str | None:
    return site.status.accepted_key.public_key.strip() if site.status.accepted_key is not None else None


def _rank(site: Site) -> tuple[bool, float, str]:
    made = site.metadata.creation_timestamp
    return (site.spec.role is not Role.EVALUATOR, made.timestamp() if made is not None else 0.0, site.metadata.name)


def accept(site: Site, owner: str | None = None) -> AcceptedKey | Finding:
    """Return the key by which the site's statements are accepted. A key once pinned is never replaced.

    `owner` is another site that has that key by right.
    """
    if site.metadata.name != site.metadata.namespace:
        return Finding(
            Reason.NAME_MISMATCH,
            f"A site is named like its namespace: create it as {site.metadata.namespace!r}.",
        )
    if site.status.agent is None:
        return Finding(Reason.NO_KEY, "The agent has not shown its public key yet: see whether its pod runs.")
    try:
        shown = PublicKey.from_pem(site.status.agent.public_key)
    except StatementError as error:
        return Finding(Reason.NO_KEY, f"status.agent.publicKey cannot be used: {error}.")
    if owner is not None:
        return Finding(
            Reason.KEY_IN_USE,
            f"Site {owner} has the key {shown.thumbprint}: no two sites share one. Give this site a new state volume, "
            "so that its agent makes a key of its own, and create the Site anew.",
        )
    pinned = site.status.accepted_key
    wanted = site.spec.public_key_thumbprint or (pinned.thumbprint if pinned is not None else shown.thumbprint)
    if pinned is not None and pinned.thumbprint != wanted:
        return Finding(
            Reason.KEY_CHANGED,
            f"spec.publicKeyThumbprint is {wanted}, but {pinned.thumbprint} is pinned: a new key needs a new Site.",
        )
    if shown.thumbprint != wanted:
        return Finding(
            Reason.KEY_CHANGED,
            f"The agent shows key {shown.thumbprint}, {wanted} is pinned: its statements are refused.",
        )
    return AcceptedKey(thumbprint=shown.thumbprint, public_key=shown.to_pem())


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
