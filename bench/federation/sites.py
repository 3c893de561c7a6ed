"""The agents of all sites in one process: their own reconcilers, on one cache and a few connections.

What every site of a real federation computes on a machine of its own is computed once here where it is the same for
all: a contract and a lineage are verified once. Nothing else is left out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from copy import copy
from pathlib import Path
from typing import Any

from bench.federation.operator import IMAGE
from concordat.api.types import API_VERSION, ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.artifacts.memory import Memory
from concordat.controller import Cache, Cluster, Controller, Key, Obj, Result
from concordat.controller.kinds import KindLike
from concordat.lineage import Trust
from concordat.protocol.artifact_types import LINEAGE_FILE
from concordat.statements import SigningKey
from concordat_agent.agent import Agent
from concordat_agent.gateway import Gateway
from concordat_agent.hub_clock import HubClock
from concordat_agent.keyring import Keyring
from concordat_agent.main import controllers as agent_controllers
from concordat_agent.notes import Notes
from concordat_agent.policy import SitePolicy
from concordat_agent.releases import verified as releases
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Prepare, Signer, clipped
from concordat_agent.updates import contract as contracts
from concordat_agent.updates.ledger import Ledger
from concordat_agent.workspace import Workspace

_LIMITS = {"maxSteps": 500, "maxWallSeconds": 3600, "allowedImages": [IMAGE]}
_POLICY = SitePolicy.from_json(json.dumps({"consent": _LIMITS, "judging": {"image": IMAGE, "minQualityPpm": 1}}))
_WORKERS = 32
_SILENT_SECONDS = 1.0


class Lineages(RegistryStore):
    """A connection to the registry that reads each lineage once: at 1,000 sites they would be gigabytes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._lineage: dict[str, bytes] = {}
        self._contents: dict[str, bytes] = {}

    def of_one_site(self) -> Lineages:
        """Return the same connection with a memory of its own, as each agent has one."""
        own = copy(self)
        own._memory = _Memory(self._contents)
        return own

    async def read(self, ref: ArtifactRef, name: str, limit: int = 16 << 20) -> bytes:
        """Return the file, as RegistryStore does."""
        if name != LINEAGE_FILE:
            return await super().read(ref, name, limit)
        if ref.digest not in self._lineage:
            data = await super().read(ref, name, limit)
            self._lineage.clear()
            self._lineage[ref.digest] = data
        return self._lineage[ref.digest]


class _Memory(Memory):
    """A memory that shares with others the bytes of what is the same for all."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__()
        self._contents = contents

    def keep(self, repository: str, digest: str, data: bytes) -> None:
        """Keep content, as Memory does."""
        super().keep(repository, digest, self._contents.setdefault(digest, data))


class Sites:
    """Agents by the namespace of their site."""

    def __init__(
        self, cluster: Cluster, cache: Cache, registries: list[Lineages], folder: Path, gateway: Gateway
    ) -> None:
        self._cluster, self._cache, self._registries, self._folder = cluster, cache, registries, folder
        self._gateway = gateway
        self._controllers: dict[str, list[Controller]] = {}
        self.workspaces: dict[str, Workspace] = {}
        self.silent: set[str] = set()
        """Sites whose agents do nothing, as if their machines were off."""
        _once(contracts, "open_contract")
        _once(releases, "verify_release")

    def add(self, site: str, key: SigningKey, trust: Trust, prepare: Prepare = clipped) -> None:
        """Add a site's agent; it starts when its Site appears."""
        folder = self._folder / site
        folder.mkdir(parents=True)
        self.workspaces[site] = Workspace(folder)
        registry = self._registries[len(self._controllers) % len(self._registries)].of_one_site()
        self._controllers[site] = agent_controllers(
            Agent(
                site=site,
                cluster=self._cluster,
                cache=self._cache,
                registry=registry,
                gateway=self._gateway,
                clock=HubClock(),
                policy=_POLICY,
                trust=trust,
                signer=Signer(site, Keyring(key), registry, _POLICY.digest, prepare),
                workspace=self.workspaces[site],
                champions=Champions(folder / "adopted.json"),
                ledger=Ledger(folder / "consents.json"),
                notes=Notes(folder / "notes"),
            )
        )

    def controllers(self) -> list[Controller]:
        """Return the controllers of one agent, in which each key is reconciled by the agent of its namespace."""
        first = next(iter(self._controllers.values()))
        return [self._shared(number, one) for number, one in enumerate(first)]

    def _shared(self, number: int, one: Controller) -> Controller:
        def keys_of(kind: KindLike) -> Callable[[Obj], Iterable[Key]]:
            def found(obj: Obj) -> Iterable[Key]:
                mine = self._controllers.get(_namespace(obj))
                return mine[number].keys(kind, obj) if mine is not None else ()

            return found

        async def reconcile(key: Key) -> Result:
            if key[0] in self.silent:
                return Result(requeue_after=_SILENT_SECONDS)
            return await self._controllers[key[0]][number].reconcile(key)

        return Controller(one.name, {kind: keys_of(kind) for kind in one.watches}, reconcile, workers=_WORKERS)


def site_manifest(name: str, federation: str, role: str) -> dict[str, Any]:
    """Return a Site as its chart writes it."""
    spec = {
        "role": role,
        "federations": [{"name": federation, "dataClaim": "data"}],
        "workspaceClaim": "workspace",
        "judgingImage": IMAGE,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Site",
        "metadata": {"name": name, "namespace": name},
        "spec": spec | ({"channel": "stable"} if role == "Trainer" else {}),
    }


def _namespace(obj: Obj) -> str:
    return str(obj["metadata"]["namespace"] if isinstance(obj, dict) else obj.metadata.namespace)


def _once(module: Any, name: str) -> None:
    """Let a function of bytes and keywords compute each answer once; its positional arguments after the first are the
    keys, which all sites share."""
    real = getattr(module, name)
    if hasattr(real, "computed_once"):
        return
    lock, last = threading.Lock(), dict[Any, Any]()

    def once(data: bytes, *more: Any, **named: Any) -> Any:
        with lock:
            asked = (data, *sorted(named.items()))
            if asked not in last:
                last.clear()
                last[asked] = real(data, *more, **named)
            return last[asked]

    once.computed_once = True  # type: ignore[attr-defined]
    setattr(module, name, once)
