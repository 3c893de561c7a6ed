"""A Site, as the hub sees it: which key is accepted, and whether the agent is there."""

from __future__ import annotations

from datetime import datetime, timedelta

from concordat.api import ConditionSet, ConditionType, Reason, Site
from concordat.api.site import AcceptedKey, SiteStatus
from concordat.protocol.locations import AGENT_LEASE
from concordat.statements import PublicKey, StatementError
from concordat_operator.rounds.select import Finding
from concordat_operator.text import until

HEARTBEAT_TIMEOUT = timedelta(seconds=90)
"""How long an agent may be silent."""
REQUEUE_SECONDS = 20.0
CONDITIONS = (ConditionType.ACCEPTED, ConditionType.READY, ConditionType.QUARANTINED)
"""The conditions of a Site; all are the operator's."""


def status(site: Site, heard: datetime | None, quarantined: str | None, now: datetime) -> SiteStatus:
    """Return the operator's part of the status.

    `heard` is when the agent last renewed its Lease, `quarantined` why the site is quarantined and what ends it.
    """
    conditions = ConditionSet(site.status.conditions, site.metadata.generation, now)
    key = accept(site)
    if isinstance(key, Finding):
        conditions.set(ConditionType.ACCEPTED, False, key.reason, key.message)
    else:
        conditions.set(
            ConditionType.ACCEPTED, True, Reason.ACCEPTED, f"The hub accepts statements signed by {key.thumbprint}."
        )
    gone = silent(heard, now)
    if isinstance(key, Finding):
        conditions.set(ConditionType.READY, False, key.reason, key.message)
    elif gone is not None:
        conditions.set(ConditionType.READY, False, gone.reason, gone.message)
    else:
        conditions.set(
            ConditionType.READY, True, Reason.HEARTBEAT, "The agent's key is accepted and its heartbeat is fresh."
        )
    conditions.drop(ConditionType.QUARANTINED)
    if quarantined is not None:
        conditions.set(ConditionType.QUARANTINED, True, Reason.POISONING_ALERT, quarantined)
    pinned = site.status.accepted_key if isinstance(key, Finding) else key
    return SiteStatus(observed_generation=site.metadata.generation, conditions=conditions.list(), accepted_key=pinned)


def accept(site: Site) -> AcceptedKey | Finding:
    """Return the key by which the site's statements are accepted. A key once pinned is never replaced."""
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


def silent(heard: datetime | None, now: datetime) -> Finding | None:
    """Return why the heartbeat counts as lost; None if it is fresh."""
    if heard is None:
        return Finding(Reason.HEARTBEAT_LOST, f"The agent has not renewed its Lease {AGENT_LEASE} yet.")
    if now - heard > HEARTBEAT_TIMEOUT:
        return Finding(
            Reason.HEARTBEAT_LOST,
            f"The agent was last heard from at {until(heard)}, "
            f"more than {HEARTBEAT_TIMEOUT.total_seconds():.0f} seconds ago: see whether its pod runs.",
        )
    return None
