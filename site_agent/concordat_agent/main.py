"""The agent's process: reads its files, connects, and runs the reconcilers."""

from __future__ import annotations

import asyncio
import logging
import sys

from concordat.api import Release, Site, Update
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.artifacts import Access, RegistryStore
from concordat.controller import (
    JOB,
    Cache,
    Clock,
    Cluster,
    Controller,
    Key,
    Obj,
    Options,
    configure,
    fields,
    garbage,
    run,
)
from concordat.controller.environment import SettingsError
from concordat.lineage import LineageError, Trust
from concordat.statements import StatementError
from concordat_agent.agent import Agent
from concordat_agent.gateway import HttpGateway
from concordat_agent.hub_clock import HubClock
from concordat_agent.keyring import Keyring
from concordat_agent.notes import Notes
from concordat_agent.policy import PolicyError, SitePolicy
from concordat_agent.releases.champions import ChampionError, Champions
from concordat_agent.releases.reconcile import ReleaseReconciler
from concordat_agent.settings import Settings
from concordat_agent.signer import Prepare, Signer, clipped
from concordat_agent.site.heartbeat import Heartbeat
from concordat_agent.site.reconcile import SiteReconciler
from concordat_agent.updates.ledger import Ledger, LedgerError
from concordat_agent.updates.reconcile import UpdateReconciler
from concordat_agent.workspace import Workspace

log = logging.getLogger(__name__)


def main(prepare: Prepare = clipped) -> None:
    """Run the agent until it is told to stop. Exits with 1 and one line when it cannot start.

    `prepare` turns the trained delta into the update that is sent.
    """
    configure()
    garbage.tame()
    try:
        asyncio.run(serve(Settings.from_environment(), prepare))
    except (SettingsError, PolicyError, ChampionError, LedgerError, StatementError, LineageError, OSError) as error:
        log.error("cannot run", extra=fields(error=str(error)))
        sys.exit(1)


async def serve(
    settings: Settings, prepare: Prepare = clipped, *, clock: Clock | None = None, stop: asyncio.Event | None = None
) -> None:
    """Run the agent with these settings until `stop` is set or the process is told to stop."""
    cache, hub_clock = Cache(), HubClock(clock)
    policy = SitePolicy.from_json(settings.policy.read_bytes())
    trust = Trust.from_json(settings.trust.read_text())
    keys = Keyring.load(settings.key, settings.key_version)
    champions, ledger = Champions(settings.history), Ledger(settings.ledger)
    access = Access.of_pod(trust.gateway_ca)
    log.info("starting", extra=fields(site=settings.site, key=keys.public[0].thumbprint, policy=policy.digest))
    async with (
        Cluster() as cluster,
        RegistryStore(settings.registry_url, access=access) as registry,
        HttpGateway(settings.registry_url, access) as gateway,
    ):
        agent = Agent(
            site=settings.site,
            cluster=cluster,
            cache=cache,
            registry=registry,
            gateway=gateway,
            clock=hub_clock,
            policy=policy,
            trust=trust,
            signer=Signer(settings.site, keys, registry, policy.digest, prepare),
            workspace=Workspace(settings.workspace),
            champions=champions,
            ledger=ledger,
            notes=Notes(settings.notes),
        )
        await run(
            controllers(agent),
            Options(
                namespaces=[settings.site],
                leader=None,
                http_port=settings.http_port,
                selectors={JOB: f"{LABEL_MANAGED_BY}={MANAGED_BY}"},
            ),
            cluster=cluster,
            cache=cache,
            clock=hub_clock.machine,
            stop=stop,
        )


def controllers(agent: Agent) -> list[Controller]:
    """Return the reconcilers and what leads to them."""

    def itself(obj: Obj) -> list[Key]:
        return [obj.key]

    def same_name(job: Obj) -> list[Key]:
        return [(job["metadata"]["namespace"], job["metadata"]["name"])]

    def the_site(obj: Obj) -> list[Key]:
        return [(obj.metadata.namespace, agent.site)]

    def updates(site: Obj) -> list[Key]:
        return [update.key for update in agent.cache.list(Update, site.metadata.namespace)]

    def releases(site: Obj) -> list[Key]:
        return [release.key for release in agent.cache.list(Release, site.metadata.namespace)]

    return [
        # On a timer of its own: nothing that the others wait for can delay it.
        Controller("heartbeat", {Site: itself}, Heartbeat(agent)),
        # Adoption changes the Site's champion, and what lies on the workspace follows Updates and Releases.
        Controller("site", {Site: itself, Update: the_site, Release: the_site}, SiteReconciler(agent)),
        Controller("update", {Update: itself, JOB: same_name, Site: updates}, UpdateReconciler(agent)),
        Controller("release", {Release: itself, JOB: same_name, Site: releases}, ReleaseReconciler(agent)),
    ]
