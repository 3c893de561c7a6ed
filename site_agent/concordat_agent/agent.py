"""The agent: all that its reconcilers share."""

from __future__ import annotations

from dataclasses import dataclass

from concordat.artifacts import RegistryStore
from concordat.controller import Cache, Cluster
from concordat.lineage import Trust
from concordat_agent.gateway import Gateway
from concordat_agent.hub_clock import HubClock
from concordat_agent.notes import Notes
from concordat_agent.policy import SitePolicy
from concordat_agent.releases.champions import Champions
from concordat_agent.signer import Signer
from concordat_agent.updates.ledger import Ledger
from concordat_agent.workspace import Workspace

FIELD_MANAGER = "concordat-agent"
"""Field manager of all the agent writes."""


@dataclass(frozen=True)
class Agent:
    """The agent of one site: its connections, its rules, its keys and its records."""

    site: str
    cluster: Cluster
    cache: Cache
    registry: RegistryStore
    gateway: Gateway
    clock: HubClock
    policy: SitePolicy
    trust: Trust
    signer: Signer
    workspace: Workspace
    champions: Champions
    ledger: Ledger
    notes: Notes
