"""How often a round asks the registry: by each site's agent, and by hub and aggregator for each site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from concordat.artifacts import RegistryStore
from tests.fakes.api_server import FakeApiServer, FakeCluster
from tests.fakes.registry_server import RegistryServer
from tests.scenarios.faults import Flickering, MortalFake
from tests.scenarios.federation import Federation
from tests.scenarios.view import EVALUATOR

SITES = ("site-a", "site-b", "site-c", "site-d")
EXPECTED = {
    "by an agent in its first round, in which it stages the base package": 30,
    "by an agent in a later round": 23,
    "by the operator and the aggregator for each site": 12,
}


class Counted(Federation):
    """A federation in which each party has its own connection to the registry, and so a memory of its own."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.stores: dict[str, RegistryStore] = {}

    def registry_of(self, party: str) -> RegistryStore:
        """Return the party's own connection."""
        return self.stores[party]


async def test_requests_of_a_round_for_each_site(tmp_path: Path) -> None:
    """Where a number has to grow, the assertion shows what is asked for."""
    async with RegistryServer() as server, Flickering(f"{server.url}/others") as others:
        federation = await _federation(server, others, tmp_path)
        first, later = [await _round(federation, server, name) for name in ("r1", "r2")]
        federation.stores["site-e"] = await server.store("site-e")
        await federation.join("site-e")
        more = await _round(federation, server, "r3")
    found = [len(first["site-a"]), len(later["site-a"])]
    found.append(sum(len(more[party]) - len(later[party]) for party in ("hub", "aggregator")))
    assert dict(zip(EXPECTED, found, strict=True)) == EXPECTED, "\n".join(later["site-a"])
    for requests, number in ((first, found[0]), (later, found[1])):
        assert {len(requests[site]) for site in SITES} == {number}


async def _federation(server: RegistryServer, others: Flickering, folder: Path) -> Counted:
    """Return a federation of four sites and an evaluator."""
    api = FakeApiServer()
    federation = Counted(MortalFake(api), FakeCluster(api), others, server.url, folder)
    for party in ("hub", "gateway", "aggregator", EVALUATOR, *SITES):
        federation.stores[party] = await server.store(party)
    await federation.namespace(federation.hub_space)
    account = {"name": "default", "namespace": federation.hub_space}
    await federation.admin.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    await federation.start_gateway()
    await federation.start_operator()
    await federation.join(EVALUATOR, role="Evaluator")
    for short in SITES:
        await federation.join(short)
    await federation.publish_genesis()
    await federation.settle()
    return federation


async def _round(federation: Federation, server: RegistryServer, name: str) -> dict[str, list[str]]:
    """Return the requests of a round up to the adoption of its release, by party."""
    await federation.settle()
    server.requests.clear()
    await federation.round(name)
    await federation.settle()
    assert await federation.champion("site-a") == federation.released(name)
    return dict(server.requests)
