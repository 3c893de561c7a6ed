"""An agent whose writes can kill it or find its volume full, and whose registry fails for it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from concordat.api.site import Champion
from concordat.api.types import ArtifactRef
from concordat.protocol.canonical import sha256_digest
from concordat_agent.agent import Agent
from concordat_agent.main import controllers
from concordat_agent.policy import SitePolicy
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Signer
from concordat_agent.workspace import Workspace
from tests.fakes.registry import MemoryRegistry
from tests.scenarios.faults import MortalFake
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


class AgentRegistry(MemoryRegistry):
    """The registry as one agent reaches it."""

    def __init__(self, shared: MemoryRegistry, push: Fate, pull: Fate) -> None:
        super().__init__()
        self.stored = shared.stored
        self.error: Exception | None = None
        """What every request ends with."""
        self._pushing, self._pulling = push, pull

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
        ref = await super().push(repository, artifact_type, files, annotations)
        self._pushing("after", write)
        return ref

    async def pull(self, ref: ArtifactRef, target: Path) -> Path:
        """Write all files into a folder."""
        self._pulling("before", f"pull {target}")
        await super().pull(ref, target)
        self._pulling("after", f"pull {target}")
        return target

    def _contents(self, ref: ArtifactRef) -> dict[str, bytes]:
        self._answer()
        return super()._contents(ref)

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error


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

    def write_note(self, job: str, name: str, note: Mapping[str, Any]) -> None:
        """Keep a note."""
        self._fate("before", f"{self._place} {job} note {name}")
        super().write_note(job, name, note)
        self._fate("after", f"{self._place} {job} note {name}")

    def discard(self, jobs: Iterable[str]) -> None:
        """Take away folders."""
        names = sorted(jobs)
        self._fate("before", f"{self._place} discard {names}")
        super().discard(names)
        self._fate("after", f"{self._place} discard {names}")


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


def restart(
    federation: Federation,
    short: str,
    *,
    cluster: MortalFake | None = None,
    push: Fate = NO_FATE,
    disk: Fate = NO_FATE,
    policy: SitePolicy | None = None,
) -> AgentRegistry:
    """Start a site's agent anew, on what its volumes hold, with these fates. Returns its way to the registry."""
    site = federation.name(short)
    before: Agent = federation.site_agents[site]
    shared = federation.registry
    assert isinstance(shared, MemoryRegistry)
    registry, folder = AgentRegistry(shared, push, disk), federation.folder / site
    rules = policy or before.policy
    agent = replace(
        before,
        cluster=cluster or before.cluster,
        registry=registry,
        policy=rules,
        signer=Signer(site, federation.site_keys[short], registry, rules.digest),
        workspace=AgentWorkspace(folder, disk),
        champions=AgentChampions(folder / "adopted.json", disk),
    )
    federation.agents[site] = controllers(agent)
    return registry
