"""Content-addressed artifacts in an OCI registry (distribution-spec 1.1). What the registry sends is hashed."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from concordat.api.types import ArtifactRef
from concordat.artifacts import manifest
from concordat.artifacts.access import Access
from concordat.artifacts.download import download
from concordat.artifacts.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound, ArtifactTooLarge
from concordat.artifacts.http import Http, Refused, Sleep
from concordat.artifacts.manifest import File
from concordat.artifacts.memory import LARGEST, Memory
from concordat.artifacts.staging import staged
from concordat.artifacts.upload import upload
from concordat.protocol.canonical import sha256_digest

_TAGS = 500
"""Tags per page of a list."""
_ACCEPT = {"Accept": f"{manifest.MANIFEST_TYPE}, {manifest.INDEX_TYPE}"}


class RegistryStore:
    """An artifact store on an OCI registry; use as an async context manager.

    Small content that was read or pushed is not asked for again: only `files` tells whether an artifact is still there.
    Every method raises RegistryUnavailable when the registry does not answer, after bounded retries with backoff
    (`sleep`, in seconds), and ArtifactError when it refuses. `access` is how it is let in.
    """

    def __init__(self, url: str, sleep: Sleep = asyncio.sleep, access: Access | None = None) -> None:
        self._http = Http(url, sleep, access)
        self._memory = Memory()

    async def __aenter__(self) -> Self:
        await self._http.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def push(
        self,
        repository: str,
        artifact_type: str,
        files: Mapping[str, bytes | Path],
        annotations: Mapping[str, str] | None = None,
    ) -> ArtifactRef:
        """Store files as one artifact; the same files yield the same reference. Raises ValueError for a bad name.

        A large file that the registry says it has is not sent again: that does not heal a damaged one.
        """
        described = [await asyncio.to_thread(_describe, name, content) for name, content in sorted(files.items())]
        body = manifest.build(artifact_type, described, annotations)
        ref = ArtifactRef(repository=repository, digest=sha256_digest(body))
        blobs: list[tuple[File, bytes | Path]] = [(manifest.EMPTY_CONFIG, manifest.EMPTY)]
        blobs += [(file, files[file.name]) for file in described]
        configured = self._memory.get(repository, manifest.EMPTY_CONFIG.digest) is not None
        try:
            await self._push(ref, body, blobs[1:] if configured else blobs)
        except Refused as error:
            if "MANIFEST_BLOB_UNKNOWN" not in error.text:
                raise
            # The registry's garbage collection took the blobs before the manifest came: send them again, once.
            await self._push(ref, body, blobs)
        for file, content in blobs:
            if isinstance(content, bytes):
                self._memory.keep(repository, file.digest, content)
        self._memory.keep(repository, ref.digest, body)
        return ref

    def reference(self, repository: str, artifact_type: str, files: Mapping[str, bytes]) -> ArtifactRef:
        """Return the reference that `push` gives to these files."""
        body = manifest.build(artifact_type, [_describe(name, data) for name, data in sorted(files.items())])
        return ArtifactRef(repository=repository, digest=sha256_digest(body))

    async def _push(self, ref: ArtifactRef, body: bytes, blobs: list[tuple[File, bytes | Path]]) -> None:
        for file, content in blobs:
            await upload(self._http, ref.repository, file, content)
        for reference in (tag_of(ref), ref.digest):
            # By tag stores it under its digest too. Of the rare registry that does not say under which, the second
            # request demands ours.
            if await self._http.again(f"push {ref.repository}", partial(self._put, ref, reference, body)):
                return

    async def _put(self, ref: ArtifactRef, reference: str, body: bytes) -> bool:
        """Store the manifest; returns whether the registry says that it has what was sent. Raises ArtifactCorrupt."""
        headers = {"Content-Type": manifest.MANIFEST_TYPE}
        async with self._http.once("PUT", _path(ref, reference), (201,), body, headers) as response:
            served = response.headers.get("Docker-Content-Digest")
        if served not in (None, ref.digest):
            raise ArtifactCorrupt(f"{ref.repository}: the registry stored {served} instead of {ref.digest}")
        return served is not None

    async def file_digests(self, ref: ArtifactRef) -> dict[str, str]:
        """Name to `sha256:…` of the artifact's files. Raises ArtifactNotFound, ArtifactCorrupt."""
        return {name: file.digest for name, file in (await self._described(ref)).items()}

    async def read(self, ref: ArtifactRef, name: str, limit: int = 16 << 20) -> bytes:
        """One file, verified, of at most `limit` bytes.

        Raises ArtifactNotFound, ArtifactCorrupt, and ArtifactTooLarge before anything of the file is transferred.
        """
        file = (await self._described(ref)).get(name)
        if file is None:
            raise ArtifactNotFound(f"{ref.repository}@{ref.digest} has no file {name!r}")
        if file.size > limit:
            raise ArtifactTooLarge(
                f"{ref.repository}@{ref.digest}: {name} has {file.size} bytes, at most {limit} are accepted"
            )
        return await self._content(ref.repository, file)

    async def pull(self, ref: ArtifactRef, target: Path) -> Path:
        """All files, verified, into the folder `target`, which appears complete or not at all; returns it.

        Does nothing if the folder is there. Raises ArtifactNotFound, ArtifactCorrupt; OSError from the disk.
        """
        if target.is_dir():
            return target
        files = await self._described(ref)
        with staged(target) as part:
            for file in files.values():
                with (part / file.name).open("wb") as out:
                    if file.size > LARGEST:
                        await download(self._http, ref.repository, file, out)
                    else:
                        out.write(await self._content(ref.repository, file))
                    out.flush()
                    await asyncio.to_thread(os.fsync, out.fileno())
        return target

    async def _content(self, repository: str, file: File) -> bytes:
        """Return a file, verified when it came here. Raises ArtifactCorrupt."""
        known = self._memory.get(repository, file.digest)
        if known is not None and len(known) == file.size:
            return known
        with io.BytesIO() as target:
            await download(self._http, repository, file, target)
            data = target.getvalue()
        self._memory.keep(repository, file.digest, data)
        return data

    async def delete(self, ref: ArtifactRef) -> None:
        """Remove the artifact and its tags, if it is there; space returns at the registry's garbage collection."""

        async def step() -> None:
            async with self._http.once("DELETE", _path(ref, ref.digest), (202, 404)):
                self._memory.forget(ref.repository, ref.digest)

        try:
            await self._http.again(f"delete {ref.repository}@{ref.digest}", step)
        except Refused as error:
            if error.status != 405:
                raise
            raise ArtifactError(
                f"{ref.repository}@{ref.digest}: the registry does not delete; set storage.delete.enabled: true "
                "in its configuration"
            ) from error

    async def delete_repository(self, repository: str) -> None:
        """Remove every artifact of a repository, if there is any. Repeating it finishes what was interrupted."""
        for ref in await self.artifacts(repository):
            await self.delete(ref)

    async def artifacts(self, repository: str) -> list[ArtifactRef]:
        """Return the artifacts of a repository, found by their tags; none where the repository does not exist."""
        tags: list[str] = []
        location: str | None = f"v2/{repository}/tags/list?n={_TAGS}"
        while location is not None:
            page, location = await self._http.again(f"list {repository}", partial(self._tags, location))
            tags += page
        digests = [
            await self._http.again(f"look up {repository}:{tag}", partial(self._digest, repository, tag))
            for tag in tags
        ]
        return [ArtifactRef(repository=repository, digest=digest) for digest in digests if digest is not None]

    async def _tags(self, location: str) -> tuple[list[str], str | None]:
        async with self._http.once("GET", location, (200, 404)) as response:
            if response.status == 404:
                return [], None
            following = response.links["next"]["url"] if "next" in response.links else None
            body = await response.json(content_type=None)
            return list(body.get("tags") or []), None if following is None else str(following)

    async def _digest(self, repository: str, tag: str) -> str | None:
        path = f"v2/{repository}/manifests/{tag}"
        async with self._http.once("HEAD", path, (200, 404), headers=_ACCEPT) as response:
            return response.headers.get("Docker-Content-Digest") if response.status == 200 else None

    async def files(self, ref: ArtifactRef) -> dict[str, File]:
        """Return the artifact's files by name, with digest and size; asks the registry each time.

        Raises ArtifactNotFound, ArtifactCorrupt.
        """
        what = f"{ref.repository}@{ref.digest}"

        async def step() -> bytes | None:
            async with self._http.once("GET", _path(ref, ref.digest), (200, 404), headers=_ACCEPT) as response:
                if response.status == 404:
                    return None
                body = bytearray()
                async for part in response.content.iter_chunked(1 << 16):
                    body += part
                    if len(body) > manifest.MAX_MANIFEST:
                        raise ArtifactCorrupt(f"{what}: the manifest is larger than {manifest.MAX_MANIFEST} bytes")
                return bytes(body)

        body = await self._http.again(f"read {what}", step)
        if body is None:
            self._memory.forget(ref.repository, ref.digest)
            raise ArtifactNotFound(f"{what} is not in the registry {self._http.url}")
        found = sha256_digest(body)
        if found != ref.digest:
            raise ArtifactCorrupt(f"{what}: the registry served a manifest that hashes to {found}; repair the registry")
        files = manifest.parse(body, what)
        self._memory.keep(ref.repository, ref.digest, body)
        return files

    async def _described(self, ref: ArtifactRef) -> dict[str, File]:
        """Return the artifact's files as `files` does, without asking again what a known manifest says."""
        known = self._memory.get(ref.repository, ref.digest)
        if known is None:
            return await self.files(ref)
        return manifest.parse(known, f"{ref.repository}@{ref.digest}")


def tag_of(ref: ArtifactRef) -> str:
    """Return the tag of an artifact: a garbage collection of untagged manifests must not take what digests refer to."""
    return f"a-{ref.digest.removeprefix('sha256:')[:32]}"


def _path(ref: ArtifactRef, reference: str) -> str:
    return f"v2/{ref.repository}/manifests/{reference}"


def _describe(name: str, content: bytes | Path) -> File:
    if not manifest.is_flat_name(name):
        raise ValueError(f"file name {name!r} must be flat: letters, digits, '.', '_' and '-', not hidden, at most 128")
    if isinstance(content, bytes):
        return File(name, sha256_digest(content), len(content))
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(name, f"sha256:{digest}", file.tell())
