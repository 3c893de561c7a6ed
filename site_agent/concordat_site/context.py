"""What every reconciler of the agent needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from concordat.artifacts import ArtifactCorrupt, ArtifactNotFound, RegistryStore, RegistryUnavailable
from concordat.lineage import Trust
from concordat.runtime import Clock, Cluster, Store, Transient
from concordat_site.champion import Champions
from concordat_site.policy import SitePolicy
from concordat_site.signer import Signer
from concordat_site.workspace import Workspace

MANAGER = "concordat-agent"
"""Field manager of all the agent writes."""


LOST = (ArtifactNotFound, ArtifactCorrupt)
"""Errors of the registry that trying again does not heal."""


@dataclass(frozen=True)
class Agent:
    """The agent of one site: its connections, its rules, its keys and its records."""

    site: str
    cluster: Cluster
    store: Store
    registry: RegistryStore
    clock: Clock
    policy: SitePolicy
    trust: Trust
    signer: Signer
    workspace: Workspace
    champions: Champions


@contextmanager
def registry_outages_pass() -> Iterator[None]:
    """Have the reconcile tried again when the registry cannot be reached."""
    try:
        yield
    except RegistryUnavailable as error:
        raise Transient(str(error)) from error
