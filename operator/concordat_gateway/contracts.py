"""The rounds that still take updates, by their contracts, and the contracts themselves, verified."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import datetime

from concordat.api import ConditionType, FederationRound, is_true
from concordat.api.round_status import ContractStatus
from concordat.artifacts import ArtifactError, RegistryStore
from concordat.controller import CONFIGMAP, ApiError, Cache, Cluster
from concordat.lineage import LineageError, Trust
from concordat.protocol.contract import Contract
from concordat.protocol.locations import TRUST_CONFIGMAP, TRUST_FILE
from concordat.statements import StatementError
from concordat.statements.contract import SignedContract, open_contract
from concordat_gateway.refusals import Denied, NotYet

_KEPT = 8
"""Contracts kept parsed, of the rounds that run at a time; one of 1,000 sites has 0.5 MB."""


class Contracts:
    """Contracts of the hub's open rounds."""

    def __init__(self, hub: str, cluster: Cluster, cache: Cache, registry: RegistryStore) -> None:
        self._hub, self._cluster, self._cache, self._registry = hub, cluster, cache, registry
        self._known: OrderedDict[str, SignedContract] = OrderedDict()
        self._reading = asyncio.Lock()

    def round_of(self, digest: str) -> FederationRound:
        """Return the round of that contract. Raises NotYet if it is not known, Denied if it takes no updates."""
        for round_ in self._cache.list(FederationRound, self._hub):
            if round_.status.contract is not None and round_.status.contract.sha256 == digest:
                break
        else:
            raise NotYet(f"no round of this hub has contract {digest}, or it is not seen yet")
        gone = round_.metadata.deletion_timestamp is not None
        if gone or round_.ended or is_true(round_.status.conditions, ConditionType.UPDATES_COLLECTED):
            raise Denied(f"round {round_.metadata.name} takes no updates any more")
        return round_

    async def of(self, round_: FederationRound) -> tuple[SignedContract, datetime]:
        """Return a round's contract, by the hub's published keys, and until when the round takes updates.

        Raises NotYet if it cannot be had at present.
        """
        found, later = await self._contract(round_, round_.status.contract), round_.status.extension
        return found, found.contract.submission_deadline if later is None else later.submission_deadline

    async def objection(self, round_uid: str, site: str) -> str | None:
        """Return why a site may not write into its slot of a round; None if it may. Raises NotYet."""
        rounds = self._cache.list(FederationRound, self._hub)
        round_ = next((known for known in rounds if known.metadata.uid == round_uid), None)
        if round_ is None or round_.ended or round_.metadata.deletion_timestamp is not None:
            return f"no round with uid {round_uid} is open"
        if round_.status.contract is None or site not in (await self.of(round_))[0].keys:
            return f"{site} is not in the contract of round {round_.metadata.name}"
        return None

    async def _contract(self, round_: FederationRound, signed: ContractStatus | None) -> SignedContract:
        if signed is None:
            raise ValueError("the round has no contract")
        async with self._reading:  # Of a thousand sites that ask at once, one waits for the registry.
            if signed.sha256 not in self._known:
                try:
                    self._known[signed.sha256] = await self._read(signed)
                except (ApiError, ArtifactError, LineageError, StatementError, KeyError) as error:
                    raise NotYet(f"the contract of round {round_.metadata.name} cannot be read: {error}") from error
                while len(self._known) > _KEPT:
                    self._known.popitem(last=False)
        return self._known[signed.sha256]

    async def _read(self, signed: ContractStatus) -> SignedContract:
        published = await self._cluster.get(CONFIGMAP, self._hub, TRUST_CONFIGMAP)
        trust = Trust.from_json(published["data"][TRUST_FILE])
        bundle = await self._registry.read(signed.artifact, Contract.STATEMENT_FILE, Contract.LIMIT)
        return await asyncio.to_thread(open_contract, bundle, trust.contract_keys, digest=signed.sha256)
