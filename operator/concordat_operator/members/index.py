"""The members, as Memberships come and go: by name, and by key."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from concordat.api import Membership, Role, Site
from concordat.controller import Cache, KindLike, Obj
from concordat.lineage.trust import MAX_EVALUATORS
from concordat.statements import PublicKey
from concordat_operator.finding import Finding
from concordat_operator.members.plan import Member, has_terms, judge, keys_of, keys_to_trust, rank

_HUB = "the hub"


class Members:
    """The Memberships of the hub's namespace; those elsewhere say nothing."""

    def __init__(self, cache: Cache, namespace: str, hub_keys: frozenset[PublicKey]) -> None:
        self._cache, self._namespace, self._hub_keys = cache, namespace, hub_keys
        self._names: defaultdict[PublicKey, set[str]] | None = None
        """Who names a key."""
        self._judged: dict[str, tuple[Site, Member | Finding]] = {}
        """What was found of a site as it is in the cache, by name; none of any site after a change of Memberships."""
        cache.subscribe(self._changed)

    def of(self, site: Site, now: datetime) -> Member | Finding:
        """Return the member that a site is, or why it is none."""
        known = self._judged.get(site.metadata.name)
        if known is not None and known[0] is site:
            return known[1]
        membership = self.membership(site.metadata.name)
        owner = self._owner(membership) if membership is not None else None
        found = judge(site, membership, owner, now)
        # Of a thousand sites it takes a tenth of a second, and each pass over a round or a release asks.
        if membership is None or not has_terms(membership):
            self._judged[site.metadata.name] = (site, found)
        return found

    def membership(self, name: str) -> Membership | None:
        """Return the Membership of that name."""
        found = self._cache.get(Membership, self._namespace, name)
        return found if found is not None and found.metadata.deletion_timestamp is None else None

    def present(self, sites: list[Site], now: datetime) -> dict[str, Member]:
        """Return the members among the sites, by name."""
        found = (self.of(site, now) for site in sites)
        return {member.name: member for member in found if isinstance(member, Member)}

    def evaluators(self, now: datetime) -> dict[str, tuple[PublicKey, ...]]:
        """Return the keys of the evaluators that are members: those that count, and those that will."""
        found: dict[str, tuple[PublicKey, ...]] = {}
        for membership in self._cache.list(Membership, self._namespace):
            spec, keys = membership.spec, keys_to_trust(membership, now)
            counts = spec.role is Role.EVALUATOR and not spec.suspended and self._owner(membership) is None
            if counts and keys and membership.metadata.deletion_timestamp is None:
                found[membership.metadata.name] = keys
        # Those beyond are published when there is room: trust.json with too many would be published for nobody.
        return dict(sorted(found.items())[:MAX_EVALUATORS])

    def judges(self) -> set[str]:
        """Return the names of all evaluators, also of those that do not count at present."""
        return {m.metadata.name for m in self._cache.list(Membership, self._namespace) if m.spec.role is Role.EVALUATOR}

    def concerned(self, membership: Membership) -> set[str]:
        """Return the sites that a change of this Membership concerns: its own, and those that name the same keys."""
        found = {membership.metadata.name}
        for key in keys_of(membership):
            found |= self._by_key()[key]
        return found

    def _owner(self, membership: Membership) -> str | None:
        """Return who has one of its keys by right, if that is another."""
        name, owners = membership.metadata.name, set()
        for key in keys_of(membership):
            if key in self._hub_keys:
                return _HUB
            owners |= self._by_key()[key] - {name}
        others = [other for owner in owners if (other := self.membership(owner)) is not None]
        first = min((o for o in others if rank(o) < rank(membership)), key=rank, default=None)
        return f"member {first.metadata.name}" if first is not None else None

    def _by_key(self) -> defaultdict[PublicKey, set[str]]:
        if self._names is None:
            self._names = defaultdict(set)
            for membership in self._cache.list(Membership, self._namespace):
                self._add(membership)
        return self._names

    def _changed(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        if kind is Site and new is None and old is not None:
            self._judged.pop(old.metadata.name, None)
        if kind is not Membership:
            return
        self._judged.clear()
        if self._names is None:
            return
        if old is not None and old.metadata.namespace == self._namespace:
            for key in keys_of(old):
                self._names[key].discard(old.metadata.name)
        if new is not None and new.metadata.namespace == self._namespace:
            self._add(new)

    def _add(self, membership: Membership) -> None:
        if self._names is not None:
            for key in keys_of(membership):
                self._names[key].add(membership.metadata.name)
