"""Which objects lead to which reconciles: an event wakes only what it concerns, and only if that depends on it.

A round of n sites has some ten changes per site. Each may wake the site's own Update or copy; what many of them
concern alike (the round, the release, the channel) is reconciled at most once per interval, and what does not depend
on the change (the Updates on their round's counts) is not reconciled at all.
"""

from __future__ import annotations

from concordat.api import (
    ConditionType,
    FederationRound,
    Membership,
    Reason,
    Release,
    ReleaseChannel,
    Role,
    Site,
    Update,
    find,
    is_true,
)
from concordat.api.release import answer
from concordat.api.types import LABEL_ROUND, LABEL_ROUND_UID
from concordat.controller import JOB, LEASE, Controller, Key, Obj, Watch, Watches
from concordat.protocol.locations import AGENT_LEASE
from concordat_operator.channels.reconcile import ChannelReconciler
from concordat_operator.history.reconcile import HistoryReconciler
from concordat_operator.hub import Hub
from concordat_operator.members.reconcile import MembershipReconciler
from concordat_operator.releases.reconcile import ReleaseReconciler
from concordat_operator.rounds.reconcile import RoundReconciler
from concordat_operator.sites.reconcile import SiteReconciler
from concordat_operator.updates.reconcile import UpdateReconciler

_COALESCE_SECONDS, _COALESCE_SECONDS_PER_SITE = 1.0, 0.002
"""Between two passes over a round, a release or a channel, when what its sites do leads to them: such a pass looks at
all sites, so that without the second they would take more of the time with each site."""

Conditions = tuple[tuple[str, str, str], ...]
_RESULTS = ("contract", "extension", "aggregation", "aggregate", "attempt", "lineage", "release")
"""The fields of a status, of whichever kind, that lead to a next step."""


def controllers(hub: Hub) -> list[Controller]:
    """Return the reconcilers and what leads to them."""
    wiring = _Wiring(hub)
    memberships: Watches = {
        Membership: (Watch(wiring.members, _spec),),
        Site: (Watch(wiring.its_membership, _as_member),),
    }
    sites: Watches = {Site: _itself, LEASE: wiring.unheard, Membership: (Watch(wiring.member_sites, _spec),)}
    rounds: Watches = {
        FederationRound: (Watch(_itself, _without_counts),),
        Update: (Watch(wiring.its_round, interval=wiring.coalesce),),
        JOB: wiring.labelled_round,
        Release: wiring.release_round,
        Site: (Watch(wiring.uncontracted, _as_selected, wiring.coalesce),),
        Membership: (Watch(wiring.uncontracted, _spec, wiring.coalesce),),
        ReleaseChannel: (Watch(wiring.uncontracted, _target),),
    }
    updates: Watches = {
        Update: _itself,
        JOB: _of_job,
        FederationRound: (Watch(wiring.updates_of, _as_updates_see_it),),
        Site: (Watch(wiring.updates_in, _uid),),
    }
    releases: Watches = {
        Release: (Watch(_itself, _without_counts), Watch(wiring.original, _reply, wiring.coalesce)),
        JOB: _of_job,
        Site: (Watch(wiring.undecided, _as_selected), Watch(wiring.releases_in, _uid)),
        Membership: (Watch(wiring.undecided, _spec),),
    }
    channels: Watches = {
        ReleaseChannel: (Watch(_itself, _without_counts),),
        Release: (Watch(wiring.channels_of_hub_release), Watch(wiring.channels_of_copy, _reply, wiring.coalesce)),
        Site: (Watch(wiring.channels, _as_subscriber, wiring.coalesce),),
    }
    history: Watches = {FederationRound: (Watch(wiring.federation_of, _ended),)}
    return [
        Controller("membership", memberships, MembershipReconciler(hub)),
        Controller("site", sites, SiteReconciler(hub)),
        Controller("round", rounds, RoundReconciler(hub)),
        Controller("update", updates, UpdateReconciler(hub)),
        Controller("release", releases, ReleaseReconciler(hub)),
        Controller("channel", channels, ChannelReconciler(hub)),
        Controller("history", history, HistoryReconciler(hub), workers=1, debounce=5.0),
    ]


class _Wiring:
    """From an object to the keys it concerns, where that takes a look at the cache."""

    def __init__(self, hub: Hub) -> None:
        self._namespace, self._cache, self._members = hub.settings.namespace, hub.cache, hub.members

    def coalesce(self) -> float:
        return _COALESCE_SECONDS + _COALESCE_SECONDS_PER_SITE * self._cache.count(Site)

    def members(self, membership: Membership) -> list[Key]:
        """Return it, and those that name the same keys."""
        if membership.metadata.namespace != self._namespace:
            return []
        return [(self._namespace, name) for name in sorted(self._members.concerned(membership))]

    def member_sites(self, membership: Membership) -> list[Key]:
        return [(name, name) for _, name in self.members(membership)]

    def its_membership(self, site: Site) -> list[Key]:
        return [(self._namespace, site.metadata.name)]

    def its_round(self, update: Update) -> list[Key]:
        return [(update.spec.round_ref.namespace, update.spec.round_ref.name)]

    def labelled_round(self, job: Obj) -> list[Key]:
        """Only of the hub's Jobs: a site's tells its Update or copy."""
        name = (job["metadata"].get("labels") or {}).get(LABEL_ROUND)
        return [(self._namespace, name)] if name and job["metadata"]["namespace"] == self._namespace else []

    def release_round(self, release: Release) -> list[Key]:
        """Only of the hub's Releases: a round does not depend on the copies."""
        if release.metadata.namespace != self._namespace:
            return []
        origin = [(self._namespace, release.spec.round_ref.name)] if release.spec.round_ref is not None else []
        return origin + self.uncontracted(release)

    def uncontracted(self, _: Obj) -> list[Key]:
        rounds = self._cache.list(FederationRound, self._namespace)
        return [round_.key for round_ in rounds if round_.status.contract is None]

    def updates_of(self, round_: FederationRound) -> list[Key]:
        return [update.key for update in self._cache.list(Update, labels={LABEL_ROUND_UID: round_.metadata.uid})]

    def updates_in(self, site: Site) -> list[Key]:
        return [update.key for update in self._cache.list(Update, site.metadata.namespace)]

    def releases_in(self, site: Site) -> list[Key]:
        return [release.key for release in self._cache.list(Release, site.metadata.namespace)]

    def federation_of(self, round_: FederationRound) -> list[Key]:
        """Return the federation whose history grew."""
        return [(self._namespace, round_.spec.federation)] if round_.ended else []

    def original(self, copy: Release) -> list[Key]:
        return [] if copy.metadata.namespace == self._namespace else [(self._namespace, copy.metadata.name)]

    def undecided(self, member: Site | Membership) -> list[Key]:
        """Releases wait for an evaluator, not for the other sites."""
        if member.spec.role is not Role.EVALUATOR:
            return []
        return [r.key for r in self._cache.list(Release, self._namespace) if r.status.lineage is None]

    def channels(self, _: Obj) -> list[Key]:
        return [channel.key for channel in self._cache.list(ReleaseChannel, self._namespace)]

    def channels_of_hub_release(self, release: Release) -> list[Key]:
        return self.channels(release) if release.metadata.namespace == self._namespace else []

    def channels_of_copy(self, release: Release) -> list[Key]:
        return [] if release.metadata.namespace == self._namespace else self.channels(release)

    def unheard(self, lease: Obj) -> list[Key]:
        """Sites that a heartbeat may bring back. Of the others it is only remembered when the last one came."""
        namespace = lease["metadata"]["namespace"]
        site = self._cache.get(Site, namespace, namespace)
        if site is None or lease["metadata"]["name"] != AGENT_LEASE:
            return []
        ready = find(site.status.conditions, ConditionType.READY)
        return [] if ready is not None and ready.reason == Reason.HEARTBEAT else [site.key]


def _itself(obj: Obj) -> list[Key]:
    return [obj.key]


def _of_job(job: Obj) -> list[Key]:
    return [(job["metadata"]["namespace"], job["metadata"]["name"])]


def _uid(obj: Obj) -> tuple[object, ...]:
    """Return what changes only when the object appears, goes, or is another one."""
    return obj.metadata.uid, obj.metadata.deletion_timestamp


def _states(obj: Obj) -> Conditions:
    """Return the conditions without their words and times."""
    return tuple((c.type, c.status.value, c.reason) for c in obj.status.conditions)


def _spec(obj: Obj) -> object:
    return (*_uid(obj), obj.spec)


def _as_member(site: Site) -> object:
    """Return what a Membership depends on: the site's role, and the keys that its agent shows."""
    return (*_uid(site), site.spec.role, site.status.agent.keys if site.status.agent is not None else None)


def _without_counts(obj: Obj) -> object:
    """Return what may lead to a next step. A pass that only counted again has nothing to do after its own write."""
    status, metadata = obj.status, obj.metadata
    results = [getattr(status, name, None) for name in _RESULTS]
    return (*_uid(obj), metadata.generation, metadata.finalizers, metadata.labels, _states(obj), results)


def _as_updates_see_it(round_: FederationRound) -> object:
    """Return what an Update's next step depends on: not what the round counts."""
    collected = is_true(round_.status.conditions, ConditionType.UPDATES_COLLECTED)
    return (*_uid(round_), round_.spec, round_.status.contract, round_.ended, collected)


def _ended(round_: FederationRound) -> object:
    return (*_uid(round_), round_.ended)


def _as_selected(site: Site) -> object:
    """Return what selection depends on: not the champion, nor what the agent says of itself."""
    return (*_uid(site), site.spec, site.metadata.labels, site.status.accepted_key, _states(site))


def _as_subscriber(site: Site) -> object:
    accepted = find(site.status.conditions, ConditionType.ACCEPTED)
    return (*_uid(site), site.spec, accepted is not None and accepted.is_true)


def _target(channel: ReleaseChannel) -> object:
    return (*_uid(channel), channel.spec, channel.status.release)


def _reply(copy: Release) -> object:
    """Return what the release and its channels count of a copy."""
    reply = answer(copy.status.conditions)
    return (
        *_uid(copy),
        (reply.type, reply.status, reply.reason) if reply is not None else None,
        copy.status.decision,
    )
