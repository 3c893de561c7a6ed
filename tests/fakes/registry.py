"""A registry in memory: the same references for the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactNotFound, ArtifactTooLarge, RegistryStore, manifest
from concordat.artifacts.manifest import File
from concordat.protocol.canonical import sha256_digest


class MemoryRegistry(RegistryStore):
    """The store, without a registry behind it."""

    def __init__(self) -> None:
        super().__init__("http://memory")
        self.stored: dict[tuple[str, str], dict[str, bytes]] = {}

    async def __aenter__(self) -> Self:
        """Nothing has to be opened."""
        return self

    async def push(
        self,
        repository: str,
        artifact_type: str,
        files: Mapping[str, bytes | Path],
        annotations: Mapping[str, str] | None = None,
    ) -> ArtifactRef:
        """Store files as one artifact."""
        contents = {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in files.items()}
        body = manifest.build(artifact_type, _described(contents), annotations)
        ref = ArtifactRef(repository=repository, digest=sha256_digest(body))
        self.stored[ref.repository, ref.digest] = contents
        return ref

    async def files(self, ref: ArtifactRef) -> dict[str, File]:
        """Return the artifact's files by name."""
        return {file.name: file for file in _described(self._contents(ref))}

    async def read(self, ref: ArtifactRef, name: str, limit: int = 16 << 20) -> bytes:
        """Return one file."""
        await self.files(ref)
        contents = self._contents(ref)
        if name not in contents:
            raise ArtifactNotFound(f"{ref.repository}@{ref.digest} has no file {name!r}")
        if len(contents[name]) > limit:
            raise ArtifactTooLarge(f"{name} has {len(contents[name])} bytes, at most {limit} are accepted")
        return contents[name]

    async def pull(self, ref: ArtifactRef, target: Path) -> Path:
        """Write all files into a folder."""
        if target.is_dir():
            return target
        await self.files(ref)
        contents = self._contents(ref)
        target.mkdir(parents=True)
        for name, data in contents.items():
            (target / name).write_bytes(data)
        return target

    async def delete(self, ref: ArtifactRef) -> None:
        """Remove the artifact, if it is there."""
        self.stored.pop((ref.repository, ref.digest), None)

    async def artifacts(self, repository: str) -> list[ArtifactRef]:
        """Return the artifacts of a repository."""
        return [ArtifactRef(repository=at, digest=digest) for at, digest in self.stored if at == repository]

    def _contents(self, ref: ArtifactRef) -> dict[str, bytes]:
        try:
            return self.stored[ref.repository, ref.digest]
        except KeyError:
            raise ArtifactNotFound(f"{ref.repository}@{ref.digest} is not in the registry {self._http.url}") from None


def _described(contents: Mapping[str, bytes]) -> list[File]:
    return [File(name, sha256_digest(data), len(data)) for name, data in sorted(contents.items())]
