"""The parent of a round, read back from where it was staged for the training Job."""

from __future__ import annotations

import asyncio

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.protocol.artifact_types import ADAPTER_CONFIG_FILE, ADAPTER_FILE
from concordat.protocol.canonical import sha256_digest
from concordat.protocol.locations import PARENT_FOLDER
from concordat_agent.workspace import Workspace

_ADAPTER_LIMIT = 1 << 30


async def read_parent(registry: RegistryStore, workspace: Workspace, job: str, ref: ArtifactRef) -> tuple[bytes, bytes]:
    """Return the parent's tensors and its configuration.

    What lies on the workspace may have been changed since: a file that does not hash to what the artifact names is read
    from the registry. Raises ArtifactError.
    """
    digests = await registry.file_digests(ref)

    async def read(name: str) -> bytes:
        staged = await asyncio.to_thread(workspace.input, job, f"{PARENT_FOLDER}/{name}", _ADAPTER_LIMIT)
        if staged is not None and await asyncio.to_thread(sha256_digest, staged) == digests.get(name):
            return staged
        return await registry.read(ref, name, _ADAPTER_LIMIT)

    return await read(ADAPTER_FILE), await read(ADAPTER_CONFIG_FILE)
