"""What is deleted in the registry when a round, a release or a copy goes. Every step can be repeated.

Only repositories that belong to what goes are touched, and never a digest that something living names: statuses that
sites write cannot direct a deletion elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

from concordat.api import FederationRound, Release, Site
from concordat.api.types import ArtifactRef
from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, ArtifactError, RegistryStore, RegistryUnavailable
from concordat.controller import fields
from concordat.protocol.artifact_types import LINEAGE_FILE, MAX_LINEAGE, STATEMENT, STATEMENT_FILE
from concordat.protocol.contract import Contract
from concordat.protocol.locations import (
    adapters_repository,
    decisions_repository,
    lineage_repository,
    releases_repository,
    round_repository,
    site_repository,
)
from concordat.statements import StatementError, unverified
from concordat.statements.fields import predicate_type
from concordat.statements.names import RELEASE
from concordat_operator.history.plan import named_digests
from concordat_operator.hub import Hub

log = logging.getLogger(__name__)

_PARALLEL = 8
"""Repositories emptied at the same time; the store has as many connections."""


async def delete_round_artifacts(hub: Hub, round_: FederationRound, staying: Iterable[Release]) -> None:
    """Delete all that a round left in the registry; `staying` are its approved releases. Raises RegistryUnavailable.

    The contract goes last: it says which sites have a repository of their own in the round.
    """
    federation, uid, aggregate = round_.spec.federation, round_.metadata.uid, round_.status.aggregate
    others = [r for r in hub.cache.list(FederationRound) if r.metadata.uid != uid]
    named = await living_digests(hub, others, [*hub.cache.list(Release), *staying], hub.cache.list(Site))
    contract = await contract_of(hub, round_)
    # The parent too: this round may be the last that started from it.
    parent = None if contract is None else contract.parent
    await _delete(hub.registry, parent, adapters_repository(federation), named)
    if aggregate is not None:
        await _delete(hub.registry, aggregate.adapter, adapters_repository(federation), named)
        await _delete(hub.registry, aggregate.lineage, lineage_repository(federation), named)
    gate = asyncio.Semaphore(_PARALLEL)

    async def empty(repository: str) -> None:
        async with gate:
            await _permitted(repository, lambda: hub.registry.delete_repository(repository))

    # Of a contract that is lost, every site there is.
    sites = [s.metadata.name for s in hub.cache.list(Site)] if contract is None else [s.name for s in contract.sites]
    await asyncio.gather(*(empty(site_repository(federation, uid, site)) for site in sites))
    await empty(round_repository(federation, uid))


async def delete_release_artifacts(hub: Hub, release: Release, named: Collection[str]) -> None:
    """Delete the adapter, the lineages and the signed release of a Release of the hub. Raises RegistryUnavailable."""
    federation, registry, lineage = release.spec.federation, hub.registry, release.status.lineage
    if lineage is not None and lineage.digest not in named:
        # Nothing but the bundle says which statement it is, so the bundle goes after it.
        for signed in await _signed_releases(registry, lineage, releases_repository(federation)):
            await _delete(registry, signed, releases_repository(federation))
    for ref, repository in (
        (lineage, lineage_repository(federation)),
        (release.spec.lineage, lineage_repository(federation)),
        (release.spec.adapter, adapters_repository(federation)),
        # The parent's own release may have gone before, while this one still named its adapter.
        (release.spec.parent, adapters_repository(federation)),
    ):
        await _delete(registry, ref, repository, named)


async def delete_decision(hub: Hub, copy: Release) -> None:
    """Delete the signed answer of a copy's namespace. Raises RegistryUnavailable."""
    if copy.status.decision is not None:
        own = decisions_repository(copy.spec.federation, copy.metadata.namespace)
        await _delete(hub.registry, copy.status.decision.statement, own)


async def living_digests(
    hub: Hub, rounds: Iterable[FederationRound], releases: Iterable[Release], sites: Iterable[Site]
) -> frozenset[str]:
    """Return the digests that these objects and the contracts of the open rounds name. Raises RegistryUnavailable."""
    rounds = list(rounds)
    contracts = [await contract_of(hub, round_) for round_ in rounds if not round_.ended]
    parents = frozenset(contract.parent.digest for contract in contracts if contract is not None)
    return named_digests(rounds, releases, sites) | parents


async def contract_of(hub: Hub, round_: FederationRound) -> Contract | None:
    """Return the round's contract; None if there is none, or none any more."""
    if round_.status.contract is None:
        return None
    try:
        return await hub.contract(round_.status.contract.artifact)
    except PERMANENT_REGISTRY_ERRORS:
        return None


async def _signed_releases(registry: RegistryStore, lineage: ArtifactRef, repository: str) -> list[ArtifactRef]:
    """Return the artifacts of the release statements in a bundle; none if the bundle has gone."""
    try:
        lines = (await registry.read(lineage, LINEAGE_FILE, MAX_LINEAGE)).splitlines()
        signed = [line for line in lines if predicate_type(unverified(line)) == RELEASE]
    except (StatementError, *PERMANENT_REGISTRY_ERRORS):
        return []
    return [registry.reference(repository, STATEMENT, {STATEMENT_FILE: line}) for line in signed]


async def _delete(
    registry: RegistryStore, ref: ArtifactRef | None, repository: str, named: Collection[str] = frozenset()
) -> None:
    """Delete an artifact of that repository, unless something names it."""
    if ref is not None and ref.repository == repository and ref.digest not in named:
        await _permitted(f"{ref.repository}@{ref.digest}", lambda: registry.delete(ref))


async def _permitted(what: str, step: Callable[[], Awaitable[None]]) -> None:
    """Do it; a registry that refuses for good keeps the artifact, and nobody has to wait for it."""
    try:
        await step()
    except RegistryUnavailable:
        raise
    except ArtifactError as error:
        log.warning("artifact not deleted", extra=fields(artifact=what, error=str(error)))
