"""The hub: all that its reconcilers share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from concordat.api.types import ArtifactRef
from concordat.artifacts import RegistryStore
from concordat.controller import Cache, Clock, Cluster
from concordat.protocol.contract import Contract
from concordat_operator.keys import Keys
from concordat_operator.settings import Settings

FIELD_MANAGER = "concordat-operator"
"""Field manager of the operator's part of most objects."""
VERDICT_FIELD_MANAGER = "concordat-operator-verdict"
"""Field manager of the verdict on an Update: another writer than the one that attends to its Job."""

_CACHED_CONTRACTS = 256


@dataclass
class Hub:
    """The operator: its connections, its keys and its settings."""

    settings: Settings
    cluster: Cluster
    cache: Cache
    registry: RegistryStore
    clock: Clock
    keys: Keys
    sequence_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the next sequence of a federation is chosen and taken."""
    _contracts: dict[str, Contract] = field(default_factory=dict)

    async def contract(self, ref: ArtifactRef) -> Contract:
        """Return the contract in an artifact. Content-addressed, so what was read once needs no second reading."""
        if ref.digest not in self._contracts:
            if len(self._contracts) >= _CACHED_CONTRACTS:
                self._contracts.clear()
            document = await self.registry.read(ref, Contract.FILE, Contract.LIMIT)
            self._contracts[ref.digest] = Contract.from_bytes(document)
        return self._contracts[ref.digest]
