"""What every reconciler of the hub needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from concordat.api.types import ArtifactRef
from concordat.artifacts import ArtifactCorrupt, ArtifactNotFound, RegistryStore, RegistryUnavailable
from concordat.protocol.contract import Contract
from concordat.runtime import Clock, Cluster, Store, Transient
from concordat_operator.keys import Keys
from concordat_operator.settings import Settings

MANAGER = "concordat-operator"
"""Field manager of the operator's part of most objects."""
VERDICT_MANAGER = "concordat-operator-verdict"
"""Field manager of the verdict on an Update: another writer than the one that attends to its Job."""

LOST = (ArtifactNotFound, ArtifactCorrupt)
"""Errors of the registry that trying again does not heal."""

_CACHED_CONTRACTS = 256


@dataclass
class Hub:
    """The operator: its connections, its keys and its settings."""

    settings: Settings
    cluster: Cluster
    store: Store
    registry: RegistryStore
    clock: Clock
    keys: Keys
    sequence_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the next sequence of a federation is chosen and taken."""
    _contracts: dict[str, Contract] = field(default_factory=dict)

    async def contract(self, ref: ArtifactRef) -> Contract:
        """The contract in an artifact. Content-addressed, so what was read once needs no second reading."""
        if ref.digest not in self._contracts:
            if len(self._contracts) >= _CACHED_CONTRACTS:
                self._contracts.clear()
            document = await self.registry.read(ref, Contract.FILE, Contract.LIMIT)
            self._contracts[ref.digest] = Contract.from_bytes(document)
        return self._contracts[ref.digest]


@contextmanager
def registry_outages_pass() -> Iterator[None]:
    """Have the reconcile tried again when the registry cannot be reached."""
    try:
        yield
    except RegistryUnavailable as error:
        raise Transient(str(error)) from error
