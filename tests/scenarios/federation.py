"""A whole federation in one process, on one API server and registry: the operator's and each agent's own reconcilers.
The test plays their scheduler, and the node."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from concordat.api import (
    ConditionSet,
    ConditionType,
    FederationRound,
    Membership,
    Reason,
    Release,
    ReleaseChannel,
    Site,
    Update,
)
from concordat.api.release import ReleaseStatus
from concordat.controller import (
    JOB,
    LEASE,
    NAMESPACE,
    Cluster,
    Conflict,
    Controller,
    FixedClock,
    NotFound,
    write_status,
)
from concordat.controller.kinds import KindLike
from concordat.lineage import Trust
from concordat.protocol.locations import (
    adapters_repository,
    base_repository,
    lineage_repository,
    releases_repository,
)
from concordat.statements import SigningKey
from concordat_agent.agent import Agent
from concordat_agent.keyring import Keyring
from concordat_agent.main import controllers as agent_controllers
from concordat_agent.notes import Notes
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Prepare, Signer, clipped
from concordat_agent.updates.ledger import Ledger
from concordat_agent.workspace import Workspace
from concordat_cli.enrolment import manifest, membership, request
from concordat_gateway import keys as gateway
from concordat_gateway.contracts import Contracts
from concordat_gateway.grants import Grants
from concordat_operator.controllers import controllers as hub_controllers
from concordat_operator.hub import FIELD_MANAGER, Hub
from concordat_operator.keys import Keys, load_or_create, publish_first, with_gateway
from concordat_operator.settings import Settings
from tests.scenarios.faults import Flickering, Killed, Mortal, NodeCache
from tests.scenarios.gateway import InProcess, NodeObserver
from tests.scenarios.hub_objects import HubObjects
from tests.scenarios.node import IMAGE, Key, Node
from tests.scenarios.view import EVALUATOR, View
from tests.support.clocks import SetHubClock
from tests.support.namespaces import clear
from tests.support.policies import policy
from tests.support.waiting import no_hang

KINDS: tuple[KindLike, ...] = (FederationRound, Membership, Site, Update, Release, ReleaseChannel, JOB, LEASE)


class Federation(HubObjects, View, Node):
    """Hub, sites and evaluator, each in its own namespace of one API server."""

    def __init__(self, cluster: Mortal, admin: Cluster, registry: Flickering, url: str, folder: Path) -> None:
        super().__init__(admin, registry, folder)
        self.cluster = cluster
        self.prefix = f"t{next(_NUMBERS)}"
        self.hub_space, self.url = f"{self.prefix}-hub", url
        self.cache.watch(KINDS)
        self.hub_controllers: list[Controller] = []
        self.site_keys: dict[str, SigningKey] = {}
        self.site_agents: dict[str, Agent] = {}
        self._caches = [self.cache]
        self.mortal: str | None = None
        """Kill the operator `before` or `after` every write."""
        self.deaths = 0
        self.tolerated: tuple[type[Exception], ...] = (Conflict, NotFound)
        """What the worker of a reconcile retries: races; and where a test makes faults, these."""
        self._bad_watch: random.Random | None = None
        self._orphans: list[str] = []
        """Jobs whose owner is gone, at the last look."""
        self._undelivered: list[tuple[str, dict[str, Any]]] = []
        self._listed: dict[tuple[KindLike, Key], dict[str, Any]] = {}
        self.history_limit = 10
        """What the next operator process is told."""
        cluster.on_write = admin.on_write = self._feed

    def _feed(self, written: dict[str, Any]) -> None:
        self.cache.feed(written)

    # ---- set-up

    async def start_gateway(self) -> None:
        """The gateway's process."""
        keys = await gateway.load_or_create(self.admin, self.hub_space, self.clock.now())
        await gateway.publish(self.admin, self.hub_space, keys, None)
        contracts = Contracts(self.hub_space, self.admin, self.cache, self.registry_of("gateway"))
        node = NodeObserver(self)
        self.grants = Grants(self.hub_space, keys.signing, self.cache, contracts, node, self.clock, keys.public)

    async def start_operator(self) -> None:
        """A fresh operator process: nothing is in its memory."""
        keys = await load_or_create(self.admin, self.hub_space)
        keys = await with_gateway(keys, self.admin, self.hub_space)
        await publish_first(self.admin, self.hub_space, keys)
        self.keys = keys
        self.hub_controllers = self._operator(self.cache)

    def _operator(self, cache: NodeCache) -> list[Controller]:
        settings = Settings(
            namespace=self.hub_space,
            registry_url=self.url,
            operator_image=IMAGE.replace("learning", "operator"),
            learning_image=IMAGE,
            history_limit=self.history_limit,
        )
        registry = self.registry_of("hub")
        return hub_controllers(Hub(settings, self.cluster, cache, registry, self.clock, self.keys))

    async def join(
        self,
        short: str,
        *,
        role: str = "Trainer",
        prepare: Prepare = clipped,
        labels: dict[str, str] | None = None,
        trust: Trust | None = None,
        channel: str = "stable",
        key_of: str | None = None,
        member: bool = True,
        **rules: Any,
    ) -> None:
        """A site with its agent and, if a trainer, its `channel`; a `member` or not. `key_of` is whose key it shows."""
        site = self.name(short)
        await self.namespace(site)
        spec = {
            "role": role,
            "federations": [{"name": "digits", "dataClaim": "data"}],
            "workspaceClaim": "workspace",
            "judgingImage": IMAGE,
            **({"channel": channel} if role == "Trainer" else {}),
        }
        metadata = {"name": site, "namespace": site, "labels": labels or {}}
        await self.admin.create(
            {"apiVersion": "concordat.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": spec}
        )
        site_policy = policy(IMAGE, **rules)
        key, folder = SigningKey.generate() if key_of is None else self.site_keys[key_of], self.folder / site
        self.site_keys[short] = key
        folder.mkdir()
        if member:
            keys = [{"publicKey": key.public.to_pem()}]
            await self.create("Membership", site, {"role": role, "federations": ["digits"], "keys": keys})
        if role == "Evaluator" and member:
            self.evaluator_key = key
        trust = trust or self.keys.trust({self.name(EVALUATOR): (self.evaluator_key.public,)})
        self.workspaces[site], registry = Workspace(folder), self.registry_of(short)
        self.site_agents[site] = agent = Agent(
            site=site,
            cluster=self.admin,
            cache=self.cache,
            registry=registry,
            gateway=InProcess(self.grants, site),
            clock=SetHubClock(self.clock),
            policy=site_policy,
            trust=trust,
            signer=Signer(site, Keyring(key), registry, site_policy.digest, prepare),
            workspace=self.workspaces[site],
            champions=Champions(folder / "adopted.json"),
            ledger=Ledger(folder / "consents.json"),
            notes=Notes(folder / "notes"),
        )
        self.agents[site] = agent_controllers(agent)

    def rotate(self, short: str, key: SigningKey, *, keep: bool = True) -> None:
        """Start a site's agent again with a new key; its key before is lost unless it is kept."""
        site, keys = self.name(short), Keyring(key, self.site_keys[short] if keep else None)
        signer = Signer(site, keys, self.registry_of(short), self.site_agents[site].policy.digest)
        self._restart(site, signer=signer)
        self.site_keys[short] = key

    def regrant(self) -> None:
        """Let every agent ask the gateway that runs now."""
        for site in self.site_agents:
            self._restart(site, gateway=InProcess(self.grants, site))

    def repin(self, trust: Trust) -> None:
        """Start every site's agent again with other keys to trust."""
        for site in self.site_agents:
            self._restart(site, trust=trust)

    def _restart(self, site: str, **changes: Any) -> None:
        self.site_agents[site] = replace(self.site_agents[site], **changes)
        self.agents[site] = agent_controllers(self.site_agents[site])

    async def accept(self, short: str) -> None:
        """Accept the key that a site shows, as `concordat site accept` does."""
        name = self.name(short)
        site, before = self.cache.get(Site, name, name), self.cache.get(Membership, self.hub_space, name)
        assert site is not None
        wanted = membership(request(site), self.hub_space, before, self.clock.now())
        await self.admin.apply(manifest(wanted), "kubectl")

    async def namespace(self, name: str) -> None:
        """A namespace with its default ServiceAccount, which pods need."""
        await self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def remove(self) -> None:
        """Remove all objects, without their controllers."""
        self.cluster.before = self.cluster.after = None
        self.registry.chance = None
        for at in (releases_repository, lineage_repository, adapters_repository, base_repository):
            await self.registry.delete_repository(at("digits"))
        await clear(self.admin, KINDS, f"{self.prefix}-")

    async def uninstall(self, short: str) -> None:
        """Delete a site's namespace with all that is in it; returns when the site's Updates are gone."""
        site = self.name(short)
        self.agents.pop(site)
        await self.admin.delete(NAMESPACE, "", site)
        async with no_hang(lambda: f"the namespace {site}"):
            while await self.admin.list(Update, site):
                continue

    async def foreign_release(self, name: str, *, sequence: int) -> None:
        """An approved release of the federation that this operator did not make."""
        genesis = self.cache.get(Release, self.hub_space, "digits-0")
        assert genesis is not None
        origin = {"name": "other", "namespace": self.hub_space, "uid": "00000000-0000-4000-8000-000000000000"}
        spec = {**genesis.spec.wire(), "sequence": sequence, "roundRef": origin, "parent": genesis.spec.adapter.wire()}
        await self.create("Release", name, spec)
        await self.sync()
        release = self.cache.get(Release, self.hub_space, name)
        assert release is not None
        conditions = ConditionSet([], 1, self.clock.now())
        conditions.set(ConditionType.APPROVED, True, Reason.APPROVED, "Restored.")
        status = ReleaseStatus(conditions=conditions.list())
        await write_status(self.admin, release, status, FIELD_MANAGER, {ConditionType.APPROVED})

    # ---- running

    async def settle(self, passes: int = 60, still: int = 1) -> None:
        """Let everybody act until nothing is written and no Job ends or goes, `still` times in a row."""
        before, quiet, passed = await self.sync(), 0, 0
        async with no_hang(lambda: f"the garbage collector, which has yet to delete {self._orphans}"):
            while passed < passes:
                after = await self.turn()
                if self._orphans:
                    # The API server's own controller deletes them, in its own time.
                    before, quiet = after, 0
                    continue
                passed += 1
                quiet = quiet + 1 if after == before else 0
                if quiet == still:
                    return
                before = after
        raise AssertionError(f"not settled after {passes} passes")

    async def turn(self) -> str:
        """Let everybody act once; returns what `sync` returns."""
        self._deliver()
        await self.operate()
        for controllers in self.agents.values():
            await self.step(controllers)
        await self.end_jobs()
        return await self.sync()

    async def operate(self) -> None:
        """One pass of the operator; a new process goes on where the old one died."""
        self.cluster.moment = self.mortal
        while True:
            try:
                await self.step(self.hub_controllers)
            except Killed:
                self.deaths += 1
                await self.sync()
                await self.start_operator()
            else:
                return

    async def step(self, controllers: list[Controller]) -> None:
        """Each reconcile once for every object that leads to it."""
        for controller in controllers:
            keys: dict[Key, None] = {}
            for kind in controller.watches:
                for obj in self.cache.list(kind):
                    keys |= dict.fromkeys(controller.keys(kind, obj))
            for key in keys:
                try:
                    await controller.reconcile(key)
                except self.tolerated:
                    continue  # The next pass sees what another writer wrote, or tries again.

    def hub_keys(self, keys: Keys) -> None:
        """Let the operator run with other keys than are stored."""
        self.keys = keys
        self.hub_controllers = self._operator(self.cache)

    def second_operator(self) -> list[Controller]:
        """Another operator process that leads too, with a cache of its own, as old as this moment."""
        cache = NodeCache()
        cache.watch(KINDS)
        cache.ended = self.cache.ended
        self._caches.append(cache)
        return self._operator(cache)

    def skew(self, short: str, seconds: int) -> None:
        """Set a site's clock ahead, or behind."""
        site = self.name(short)
        clock = SetHubClock(self.clock, FixedClock(self.clock.now() + timedelta(seconds=seconds)))
        self.agents[site] = agent_controllers(replace(self.site_agents[site], clock=clock))

    def watch_badly(self, chance: random.Random | None) -> None:
        """Feed the cache by watch events that are lost, late, doubled and out of order; None: by lists again."""
        self.cluster.on_write = self.admin.on_write = None
        self._bad_watch = chance

    def _happened(self, kind: KindLike, items: list[dict[str, Any]]) -> None:
        """Note what a watch would have told since the last list."""
        seen = {(i["metadata"]["namespace"], i["metadata"]["name"]): i for i in items}
        for (of, key), old in list(self._listed.items()):
            if of is kind and key not in seen:
                self._undelivered.append(("DELETED", old))
                del self._listed[of, key]
        for key, item in seen.items():
            if self._listed.get((kind, key)) != item:
                self._undelivered.append(("MODIFIED", item))
                self._listed[kind, key] = item

    def _deliver(self) -> None:
        chance = self._bad_watch
        if chance is None:
            return
        due = [pair for pair in self._undelivered if chance.random() < 0.7]
        self._undelivered = [pair for pair in self._undelivered if pair not in due]
        chance.shuffle(due)
        for event, obj in due + [pair for pair in due if chance.random() < 0.2]:
            if chance.random() < 0.2:
                continue
            if event == "DELETED":
                self.cache.remove(obj)
            else:
                self.cache.feed(obj)

    async def sync(self) -> str:
        """List everything, as the watches would tell it; returns what tells a changed world from an unchanged one."""
        state: list[Any] = []
        uids: set[str] = set()
        for kind in KINDS:
            items, version = await self.admin.list_at(kind)
            mine = [i for i in items if i["metadata"]["namespace"].startswith(f"{self.prefix}-")]
            uids |= {i["metadata"]["uid"] for i in mine}
            if kind is JOB:
                owners = {i["metadata"]["name"]: i["metadata"].get("ownerReferences") or () for i in mine}
                self._orphans = [job for job, by in owners.items() if not uids.issuperset(o["uid"] for o in by)]
            if self._bad_watch is not None:
                self._happened(kind, mine)
                if self._bad_watch.random() < 0.9:
                    continue
            for cache in self._caches:
                await cache.sync(kind, mine, version)
            state += [
                {
                    **i,
                    "metadata": {
                        k: v for k, v in i["metadata"].items() if k not in ("managedFields", "resourceVersion")
                    },
                }
                for i in mine
                if kind is not JOB
            ]
        return json.dumps([state, sorted(uids), sorted(self.cache.ended)], default=str)


_NUMBERS = itertools.count(1)
