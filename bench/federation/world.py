"""The whole federation, as a context manager: start it, enrol sites, run rounds, break things."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.federation import audit
from bench.federation.control_plane import AuditedControlPlane
from bench.federation.install import install_hub, of_site, operator_user, site_rights
from bench.federation.nodes import CONFIG, PARENT, Nodes, Times
from bench.federation.operator import HUB, Operator
from bench.federation.progress import Progress
from bench.federation.registry import Registry
from bench.federation.sites import Lineages, Sites, site_manifest
from concordat.api import FederationRound, Release, ReleaseChannel
from concordat.api.types import API_VERSION, LABEL_MANAGED_BY, MANAGED_BY
from concordat.controller import (
    CONFIGMAP,
    JOB,
    Cache,
    Cluster,
    Controller,
    Key,
    NotFound,
    Obj,
    Options,
    Result,
    SystemClock,
    run,
)
from concordat.lineage import Trust
from concordat.protocol import artifact_types as types
from concordat.protocol.locations import (
    GATEWAY_CONFIGMAP,
    GATEWAY_KEYS_FILE,
    TRUST_CONFIGMAP,
    TRUST_FILE,
    base_repository,
)
from concordat.statements import SigningKey
from concordat.tensors import write_tensors
from tests.support.grants import TrustingGateway

EVALUATOR, FEDERATION, CHANNEL = "evaluator", "digits", "stable"
_CONNECTIONS = 6
_AT_ONCE = 32
_MUCH = 100_000
_NODE_SECONDS = 0.5
_START_SECONDS = 300.0


class World:
    """A federation of `names` trainers and an evaluator on this machine, with one replica of the operator.

    `favoured` gives the operator's process the CPU before all others: what blocks its event loop is then its own.
    """

    def __init__(self, sites: int, times: Times, seed: int = 1, *, favoured: bool = False) -> None:
        self.names = [f"site-{number:04d}" for number in range(sites)]
        self._favoured = favoured
        self.times, self.random = times, random.Random(seed)  # noqa: S311 - times of Jobs
        self.progress, self.cache = Progress(), Cache()
        self._gateway_key = SigningKey.generate()
        self.users = {operator_user(): audit.OPERATOR, "bench-agents": audit.AGENTS, "bench-nodes": audit.NODES}
        self.replicas: list[Operator] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="concordat-bench-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.control_plane = self._stack.enter_context(AuditedControlPlane())
        install_hub(self.control_plane)
        self.registry = Registry(self.folder / "registry")
        self._stack.callback(self.registry.stop)
        self.registry.start()
        self.operator = self.replica("operator-0")
        self.admin = await self._client("bench-admin")
        await self.admin.create(self._gateway())
        self.agents, nodes = await self._client("bench-agents"), await self._client("bench-nodes")
        registries = [Lineages(self.registry.url) for _ in range(_CONNECTIONS)]
        for registry in registries:
            await self._stack.enter_async_context(registry)
        self.store = registries[0]
        gateway = TrustingGateway(self._gateway_key, SystemClock(), self._round_of)
        self.sites = Sites(self.agents, self.cache, registries, self.folder / "sites", gateway)
        self.nodes = Nodes(
            cluster=nodes,
            cache=self.cache,
            workspaces=self.sites.workspaces,
            folder=self.folder / "aggregator",
            registry_url=self.registry.hub_url,
            times=self.times,
            random=self.random,
        )
        self.nodes.folder.mkdir()
        self._stack.push_async_callback(self.nodes.close)
        self._background(self._restart_operators())
        await self._enrol()

    def _gateway(self) -> dict[str, Any]:
        """Return what the gateway would publish. It is not measured: the agents make their grants themselves."""
        metadata = {"name": GATEWAY_CONFIGMAP, "namespace": HUB}
        data = {GATEWAY_KEYS_FILE: json.dumps([self._gateway_key.public.to_pem()])}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def _round_of(self, contract_digest: str) -> str:
        rounds = self.cache.list(FederationRound, HUB)
        signed = ((r, r.status.contract) for r in rounds)
        return next(r.metadata.uid for r, c in signed if c is not None and c.sha256 == contract_digest)

    def replica(self, name: str) -> Operator:
        """Start another process of the operator."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{HUB}")
        kubeconfig = self.control_plane.kubeconfig_for(operator_user(), *groups)
        started = Operator(kubeconfig, self.registry.hub_url, self.folder, name, favoured=self._favoured)
        self._stack.callback(started.kill)
        self.replicas.append(started)
        return started

    async def _restart_operators(self) -> None:
        """Do what a node does for the containers of the operator."""
        while True:
            for replica in self.replicas:
                replica.restart_if_ended()
            await asyncio.sleep(_NODE_SECONDS)

    async def _client(self, user: str) -> Cluster:
        kubeconfig = self.control_plane.kubeconfig_for(user, "system:masters")
        return await self._stack.enter_async_context(Cluster(kubeconfig, qps=_MUCH, burst=_MUCH))

    async def _enrol(self) -> None:
        """Create the sites with their keys, start all agents, publish the first release and the channel."""
        hub = Trust.from_json(await self._trust())
        evaluator = SigningKey.generate()
        self.trust = Trust(hub.contract_keys, hub.aggregation_keys, hub.gateway_keys, {EVALUATOR: (evaluator.public,)})
        site_keys = {name: SigningKey.generate() for name in self.names} | {EVALUATOR: evaluator}
        for name, key in site_keys.items():
            self.sites.add(name, key, self.trust)
        await self._run_agents()
        keys = {
            "contractKeys": [key.to_pem() for key in hub.contract_keys],
            "aggregationKeys": [key.to_pem() for key in hub.aggregation_keys],
            "gatewayKeys": [key.to_pem() for key in hub.gateway_keys],
            "evaluators": {},
        }
        rights, slots = site_rights(keys, self.folder), asyncio.Semaphore(_AT_ONCE)

        async def install(name: str) -> None:
            async with slots:
                await self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
                role = "Evaluator" if name == EVALUATOR else "Trainer"
                keys = [{"publicKey": site_keys[name].public.to_pem()}]
                member = {"role": role, "federations": [FEDERATION], "keys": keys}
                await self.create(*of_site(rights, name), site_manifest(name, FEDERATION, role))
                await self.create(_of_hub("Membership", name, member))

        await asyncio.gather(*(install(name) for name in [EVALUATOR, *self.names]))
        files = {types.ADAPTER_FILE: write_tensors(PARENT), types.ADAPTER_CONFIG_FILE: CONFIG}
        adapter = await self.store.push(f"{FEDERATION}/adapters", types.ADAPTER, files)
        base = await self.store.push(base_repository(FEDERATION), types.BASE_PACKAGE, {"package.json": b"{}"})
        spec = {"federation": FEDERATION, "sequence": 0, "base": base.wire(), "adapter": adapter.wire()}
        await self.create(_of_hub("Release", f"{FEDERATION}-0", spec))
        await self.create(_of_hub("ReleaseChannel", CHANNEL, {"federation": FEDERATION, "follow": "Approved"}))

    async def _trust(self) -> str:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                try:
                    found = await self.admin.get(CONFIGMAP, HUB, TRUST_CONFIGMAP)
                    return str(found["data"][TRUST_FILE])
                except NotFound:
                    await asyncio.sleep(0.1)

    async def _run_agents(self) -> None:
        async def nothing(_: Key) -> Result:
            return Result()

        def none(_: Obj) -> Iterable[Key]:
            return ()

        looked_at = Controller("bench", dict.fromkeys((FederationRound, Release, ReleaseChannel), none), nothing)
        options = Options(
            namespaces=None, leader=None, http_port=0, selectors={JOB: f"{LABEL_MANAGED_BY}={MANAGED_BY}"}
        )
        self.cache.subscribe(self.progress.notice)
        self.cache.subscribe(self.nodes.notice)
        agents = run(
            [*self.sites.controllers(), looked_at],
            options,
            cluster=self.agents,
            cache=self.cache,
            clock=SystemClock(),
            stop=asyncio.Event(),
        )
        self._background(agents)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task, measuring = asyncio.create_task(work), asyncio.current_task()
        # The agents end on SIGTERM and SIGINT, which they take for themselves: with them the measurement.
        task.add_done_callback(lambda ended: None if ended.cancelled() or measuring is None else measuring.cancel())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    async def create(self, *manifests: dict[str, Any]) -> None:
        """Create objects as administrator."""
        for manifest in manifests:
            await self.admin.create(manifest)

    async def start_round(self, name: str, **spec: Any) -> None:
        """Create a round that asks every site; `spec` differs from what is usual for so many sites."""
        sites = len(self.names)
        usual = {
            "federation": FEDERATION,
            "parent": {"channelRef": {"name": CHANNEL}},
            "sites": {"maxSites": sites},
            "quorum": max(3, sites * 6 // 10),
            "aggregation": {"maxFaultySites": max(1, sites // 10)},
            "screening": {"clipNorm": "4"},
        }
        await self.create(_of_hub("FederationRound", name, usual | spec))


def _of_hub(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": HUB}, "spec": spec}
