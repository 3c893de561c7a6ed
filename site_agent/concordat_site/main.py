"""The agent's process: reads its files, connects, and runs the three reconcilers."""

from __future__ import annotations

import asyncio
import logging
import sys

from concordat.api import Release, Site, Update
from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.artifacts import RegistryStore
from concordat.lineage import LineageError, Trust
from concordat.runtime import JOB, Clock, Cluster, Controller, Key, Obj, Store, SystemClock, configure, fields, run
from concordat.statements import StatementError, write_once_key
from concordat_site.champion import ChampionError, Champions
from concordat_site.context import Agent
from concordat_site.policy import PolicyError, SitePolicy
from concordat_site.reconcile.release import ReleaseReconciler
from concordat_site.reconcile.site import SiteReconciler
from concordat_site.reconcile.update import UpdateReconciler
from concordat_site.settings import Settings, SettingsError
from concordat_site.signer import Prepare, Signer, clipped
from concordat_site.workspace import Workspace

log = logging.getLogger(__name__)


def main(prepare: Prepare = clipped) -> None:
    """Run the agent until it is told to stop. Exits with 1 and one line when it cannot start.

    `prepare` makes of what training changed what is sent.
    """
    configure()
    try:
        asyncio.run(serve(Settings.from_environment(), prepare))
    except (SettingsError, PolicyError, ChampionError, StatementError, LineageError, OSError) as error:
        log.error("cannot run", extra=fields(error=str(error)))
        sys.exit(1)


async def serve(
    settings: Settings, prepare: Prepare = clipped, *, clock: Clock | None = None, stop: asyncio.Event | None = None
) -> None:
    """Run the agent with these settings until `stop` is set or the process is told to stop."""
    store, clock = Store(), clock or SystemClock()
    policy = SitePolicy.from_json(settings.policy.read_bytes())
    trust = Trust.from_json(settings.trust.read_text())
    key = write_once_key(settings.key)
    champions = Champions(settings.history)
    log.info("starting", extra=fields(site=settings.site, key=key.public.thumbprint, policy=policy.digest))
    async with Cluster() as cluster, RegistryStore(settings.registry_url) as registry:
        agent = Agent(
            site=settings.site,
            cluster=cluster,
            store=store,
            registry=registry,
            clock=clock,
            policy=policy,
            trust=trust,
            signer=Signer(settings.site, key, registry, policy.digest, prepare),
            workspace=Workspace(settings.workspace),
            champions=champions,
        )
        await run(
            controllers(agent),
            cluster=cluster,
            store=store,
            clock=clock,
            namespaces=[settings.site],
            job_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}",
            leader=None,
            http_port=settings.http_port,
            stop=stop,
        )


def controllers(agent: Agent) -> list[Controller]:
    """The reconcilers and what leads to them."""

    def itself(obj: Obj) -> list[Key]:
        return [obj.key]

    def same_name(job: Obj) -> list[Key]:
        return [(job["metadata"]["namespace"], job["metadata"]["name"])]

    def the_site(obj: Obj) -> list[Key]:
        return [(obj.metadata.namespace, agent.site)]

    def updates(site: Obj) -> list[Key]:
        return [update.key for update in agent.store.list(Update, site.metadata.namespace)]

    def releases(site: Obj) -> list[Key]:
        return [release.key for release in agent.store.list(Release, site.metadata.namespace)]

    return [
        # Adoption changes the Site's champion, which the Releases then show: hence Release → Site → Releases.
        Controller("site", {Site: itself, Update: the_site, Release: the_site}, SiteReconciler(agent)),
        Controller("update", {Update: itself, JOB: same_name, Site: updates}, UpdateReconciler(agent)),
        Controller("release", {Release: itself, JOB: same_name, Site: releases}, ReleaseReconciler(agent)),
    ]
