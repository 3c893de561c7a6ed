"""A look at a federation: its objects by the short names that tests use, and what must always hold of them."""

from __future__ import annotations

from concordat.api import FederationRound, Release, ReleaseChannel, Site, Update
from concordat.protocol.contract import Contract
from concordat.statements import SigningKey
from concordat_operator.keys import Keys
from tests.scenarios.faults import Flickering, NodeCache
from tests.support.invariants import World, broken
from tests.support.presence import present

EVALUATOR = "evaluator"


class View:
    """The objects of one federation."""

    prefix: str
    hub_space: str
    cache: NodeCache
    registry: Flickering
    keys: Keys
    evaluator_key: SigningKey

    def name(self, short: str) -> str:
        """The namespace of a site."""
        return f"{self.prefix}-{short}"

    def found(self, name: str) -> FederationRound:
        """The round."""
        found = self.cache.get(FederationRound, self.hub_space, name)
        assert isinstance(found, FederationRound)
        return found

    def released(self, name: str) -> str:
        """Return the name of the release that a round led to."""
        return present(self.found(name).status.release).name

    async def contract(self, name: str) -> Contract:
        """The signed contract of a round."""
        signed = present(self.found(name).status.contract)
        return Contract.from_bytes(await self.registry.read(signed.artifact, Contract.FILE))

    def updates(self, name: str) -> dict[str, Update]:
        """The round's Updates by the short name of their site."""
        uid = self.found(name).metadata.uid
        mine = [u for u in self.cache.list(Update) if u.spec.round_ref.uid == uid]
        return {u.spec.site.removeprefix(f"{self.prefix}-"): u for u in mine}

    def copies(self, name: str) -> dict[str, Release]:
        """A release's copies by the short name of their site."""
        mine = [r for r in self.cache.list(Release) if r.metadata.name == name]
        return {r.metadata.namespace.removeprefix(f"{self.prefix}-"): r for r in mine}

    def channel(self, name: str) -> ReleaseChannel:
        """A channel of the hub."""
        found = self.cache.get(ReleaseChannel, self.hub_space, name)
        assert isinstance(found, ReleaseChannel)
        return found

    async def champion(self, short: str) -> str | None:
        """What a site uses."""
        site = self.cache.get(Site, self.name(short), self.name(short))
        return site.status.champion.release if site.status.champion else None

    async def broken(self) -> list[str]:
        """Return what must always hold and does not."""
        world = World(
            self.hub_space,
            self.cache.list(FederationRound),
            self.cache.list(Update),
            self.cache.list(Release),
            self.cache.list(Site),
        )
        trust = self.keys.trust({self.name(EVALUATOR): (self.evaluator_key.public,)})
        return await broken(world, self.registry, trust)
