"""An agent whose writes can kill it or find its volume full, and whose registry fails for it alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from concordat.api import Resource
from concordat.api.site import Champion
from concordat.api.types import ArtifactRef, Model
from concordat.artifacts import RegistryStore
from concordat.artifacts.manifest import File
from concordat.protocol.canonical import sha256_digest
from concordat_agent.agent import FIELD_MANAGER, Agent
from concordat_agent.keyring import Keyring
from concordat_agent.main import controllers
from concordat_agent.notes import Notes
from concordat_agent.policy import SitePolicy
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Signer
from concordat_agent.updates.ledger import Ledger
from concordat_agent.workspace import Workspace
from tests.scenarios.federation import Federation


class Fate:
    """What happens `before` or `after` each write, the first time that it is made."""

    def __init__(self, moment: str, error: Callable[[], BaseException]) -> None:
        self._moment, self._error = moment, error
        self.met: set[str] = set()

    def __call__(self, moment: str, write: str) -> None:
        """Raise the error, once for each write."""
        if moment == self._moment and write not in self.met:
            self.met.add(write)
            raise self._error()


NO_FATE = Fate("never", RuntimeError)


class AgentRegistry(RegistryStore):
    """The registry as one agent reaches it."""

    def __init__(self, shared: RegistryStore, push: Fate, pull: Fate) -> None:
        super().__init__("http://agent")
        self.error: Exception | None = None
        """What every request ends with."""
        self._shared, self._pushing, self._pulling = shared, push, pull

    async def push(
        self,
        repository: str,
        artifact_type: str,
        files: Mapping[str, bytes | Path],
        annotations: Mapping[str, str] | None = None,
    ) -> ArtifactRef:
        """Store files as one artifact."""
        digests = [sha256_digest(data) for data in files.values() if isinstance(data, bytes)]
        write = f"push {repository} {digests}"
        self._answer()
        self._pushing("before", write)
        ref = await self._shared.push(repository, artifact_type, files, annotations)
        self._pushing("after", write)
        return ref

    async def pull(self, ref: ArtifactRef, target: Path) -> Path:
        """Write all files into a folder."""
        self._answer()
        self._pulling("before", f"pull {target}")
        await self._shared.pull(ref, target)
        self._pulling("after", f"pull {target}")
        return target

    async def files(self, ref: ArtifactRef) -> dict[str, File]:
        """Return the artifact's files by name."""
        self._answer()
        return await self._shared.files(ref)

    async def read(self, ref: ArtifactRef, name: str, limit: int = 16 << 20) -> bytes:
        """Return one file."""
        self._answer()
        return await self._shared.read(ref, name, limit)

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


def interfere(federation: Federation, happen: Callable[[str, str], None]) -> None:
    """Call `happen` with `before` or `after` and what is written, at each write of an agent to the API server."""
    request = federation.admin._request

    async def interfered(method: str, path: str, query: Any = None, body: Any = None, *more: Any) -> dict[str, Any]:
        event = (body or {}).get("reportingController") == FIELD_MANAGER
        if not event and (query or {}).get("fieldManager") != FIELD_MANAGER:
            return await request(method, path, query, body, *more)
        write = json.dumps([path, body], sort_keys=True, default=str)
        happen("before", write)
        answer = await request(method, path, query, body, *more)
        happen("after", write)
        return answer

    setattr(federation.admin, "_request", interfered)  # noqa: B010 - of this connection alone


class AgentWorkspace(Workspace):
    """A workspace on a volume with a fate."""

    def __init__(self, root: Path, fate: Fate) -> None:
        super().__init__(root)
        self._fate, self._place = fate, root.name

    def prepare(self, job: str) -> None:
        """Make the Job's folders."""
        self._fate("before", f"{self._place} {job}")
        super().prepare(job)
        self._fate("after", f"{self._place} {job}")

    def write_input(self, job: str, name: str, data: bytes) -> None:
        """Write one input file."""
        self._fate("before", f"{self._place} {job} {name}")
        super().write_input(job, name, data)
        self._fate("after", f"{self._place} {job} {name}")

    def empty_output(self, job: str) -> None:
        """Give the Job a new folder for its output."""
        self._fate("before", f"{self._place} {job} out")
        super().empty_output(job)
        self._fate("after", f"{self._place} {job} out")

    def discard(self, jobs: Iterable[str]) -> None:
        """Take away folders."""
        names = sorted(jobs)
        self._fate("before", f"{self._place} discard {names}")
        super().discard(names)
        self._fate("after", f"{self._place} discard {names}")


class AgentNotes(Notes):
    """Notes on a volume with a fate."""

    def __init__(self, root: Path, fate: Fate) -> None:
        super().__init__(root)
        self._fate, self._place = fate, root.parent.name

    def keep(self, about: Resource, note: Model) -> None:
        """Write a note down."""
        # By its kind: what a grant says is another each time.
        words = f"{self._place} {about.metadata.name} {type(note).__name__}"
        self._fate("before", words)
        super().keep(about, note)
        self._fate("after", words)


class AgentChampions(Champions):
    """A record of champions on a volume with a fate."""

    def __init__(self, path: Path, fate: Fate) -> None:
        super().__init__(path)
        self._fate, self._place = fate, path.parent.name

    def adopt(self, federation: str, champion: Champion) -> bool:
        """Make it the champion."""
        self._fate("before", f"{self._place} adopt {champion.release}")
        adopted = super().adopt(federation, champion)
        self._fate("after", f"{self._place} adopt {champion.release}")
        return adopted


class AgentLedger(Ledger):
    """A record of consents on a volume with a fate."""

    def __init__(self, path: Path, fate: Fate) -> None:
        super().__init__(path)
        self._fate, self._place = fate, path.parent.name

    def enter(self, contract: str, at: datetime, wall_seconds: int) -> None:
        """Write a consent down."""
        self._fate("before", f"{self._place} enter {contract}")
        super().enter(contract, at, wall_seconds)
        self._fate("after", f"{self._place} enter {contract}")


def restart(
    federation: Federation,
    short: str,
    *,
    push: Fate = NO_FATE,
    disk: Fate = NO_FATE,
    policy: SitePolicy | None = None,
) -> AgentRegistry:
    """Start a site's agent anew, on what its volumes hold, with these fates. Returns its way to the registry."""
    site = federation.name(short)
    before: Agent = federation.site_agents[site]
    registry, folder = AgentRegistry(federation.registry, push, disk), federation.folder / site
    rules = policy or before.policy
    agent = replace(
        before,
        registry=registry,
        policy=rules,
        signer=Signer(site, Keyring(federation.site_keys[short]), registry, rules.digest),
        workspace=AgentWorkspace(folder, disk),
        champions=AgentChampions(folder / "adopted.json", disk),
        ledger=AgentLedger(folder / "consents.json", disk),
        notes=AgentNotes(folder / "notes", disk),
    )
    federation.agents[site] = controllers(agent)
    return registry
