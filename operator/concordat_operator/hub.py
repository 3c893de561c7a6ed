"""The hub: all that its reconcilers share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar, cast

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import Cache, Clock, Cluster
from concordat.protocol.contract import Contract
from concordat.protocol.document import Document
from concordat_operator.keys import Keys
from concordat_operator.members.index import Members
from concordat_operator.settings import Settings

FIELD_MANAGER = "concordat-operator"
"""Field manager of the operator's part of most objects."""
EXTENSION_FIELD_MANAGER = "concordat-operator-extension"
"""Field manager of the later deadlines on an Update."""
VERDICT_FIELD_MANAGER = "concordat-operator-verdict"
"""Field manager of the verdict on an Update: another writer than the one that attends to its Job."""

_CACHED_BYTES = 16 * 2**20
"""Size of the documents kept parsed, which take about twice that; a contract of 1,000 sites has 0.5 MB."""

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
    members: Members = field(init=False)
    """Whose word counts."""
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a round is opened, from the choice of its parent to the write of its contract; and while the next
    sequence of a federation is chosen and taken."""
    _documents: OrderedDict[str, tuple[Document, int]] = field(default_factory=OrderedDict)
    """By digest, with their sizes in bytes; the one used last comes last."""

    def __post_init__(self) -> None:
        self.members = Members(self.cache, self.settings.namespace, self.keys.all())

    async def contract(self, ref: ArtifactRef) -> Contract:
        """Return the contract in an artifact."""
        return await self.document(ref, Contract)

    async def document(self, ref: ArtifactRef, type_: type[D]) -> D:
        """Return a document, parsed once: each of a round's Updates leads to its contract."""
        if ref.digest not in self._documents:
            data = await self.registry.read(ref, type_.FILE, type_.LIMIT)
            self._documents[ref.digest] = (await asyncio.to_thread(type_.from_bytes, data), len(data))
            self._forget()
        self._documents.move_to_end(ref.digest)
        return cast(D, self._documents[ref.digest][0])

    def _forget(self) -> None:
        while len(self._documents) > 1 and sum(size for _, size in self._documents.values()) > _CACHED_BYTES:
            self._documents.popitem(last=False)
