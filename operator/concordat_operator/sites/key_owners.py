"""Which sites have which key, kept as Sites come and go."""

from __future__ import annotations

from collections import defaultdict

from concordat.api import Site
from concordat.controller import Cache, Key, KindLike, Obj
from concordat_operator.sites.plan import key_owner, keys_of


class KeyOwners:
    """The sites by the keys that they show or had accepted."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._sites: defaultdict[str, set[Key]] | None = None
        cache.subscribe(self._changed)

    def of(self, site: Site) -> str | None:
        """Return another site that has this one's key by right; None if it is this one's own."""
        if self._sites is None:
            self._sites = defaultdict(set)
            for known in self._cache.list(Site):
                self._add(known)
        same = {key for shown in keys_of(site) for key in self._sites.get(shown, ())}
        others = [other for key in same if (other := self._cache.get(Site, *key)) is not None]
        return key_owner(site, others)

    def _changed(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        if kind is not Site or self._sites is None:
            return
        if old is not None:
            for key in keys_of(old):
                self._sites[key].discard(old.key)
        if new is not None:
            self._add(new)

    def _add(self, site: Site) -> None:
        if self._sites is not None:
            for key in keys_of(site):
                self._sites[key].add(site.key)
