"""The hub: all that its reconcilers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TypeVar, cast

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import Cache, Clock, Cluster
from concordat.protocol.contract import Contract
from concordat.protocol.document import Document
from concordat_operator.keys import Keys
from concordat_operator.settings import Settings

FIELD_MANAGER = "concordat-operator"
"""Field manager of the operator's part of most objects."""
EXTENSION_FIELD_MANAGER = "concordat-operator-extension"
"""Field manager of the later deadlines on an Update."""
VERDICT_FIELD_MANAGER = "concordat-operator-verdict"
"""Field manager of the verdict on an Update: another writer than the one that attends to its Job."""

_CACHED_DOCUMENTS = 256

D = TypeVar("D", bound=Document)


@dataclass
class Hub:
    """The operator: its connections, its keys and its settings."""

    settings: Settings
    cluster: Cluster
    cache: Cache
    registry: RegistryStore
    clock: Clock
    keys: Keys
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a round is opened, from the choice of its parent to the write of its contract; and while the next
    sequence of a federation is chosen and taken."""
    _documents: dict[str, Document] = field(default_factory=dict)

    async def contract(self, ref: ArtifactRef) -> Contract:
        """Return the contract in an artifact."""
        return await self.document(ref, Contract)

    async def document(self, ref: ArtifactRef, type_: type[D]) -> D:
        """Return a document. Content-addressed, so what was read once needs no second reading."""
        if ref.digest not in self._documents:
            if len(self._documents) >= _CACHED_DOCUMENTS:
                self._documents.clear()
            data = await self.registry.read(ref, type_.FILE, type_.LIMIT)
            self._documents[ref.digest] = type_.from_bytes(data)
        return cast(D, self._documents[ref.digest])
