"""The operator's process: reads its settings, connects, and runs the reconcilers while it holds the Lease."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

from prometheus_client import disable_created_metrics

from concordat.api import FederationRound, Release, ReleaseChannel, Site, Update
from concordat.api.types import LABEL_MANAGED_BY, LABEL_ROUND, MANAGED_BY
from concordat.artifacts import RegistryStore
from concordat.controller import (
    JOB,
    ApiError,
    Cache,
    Clock,
    Cluster,
    Controller,
    Key,
    KindLike,
    LeaderConfig,
    LeadershipLost,
    Obj,
    Options,
    SystemClock,
    configure,
    fields,
    run,
)
from concordat.controller.environment import SettingsError
from concordat.statements import StatementError
from concordat_operator import VERSION
from concordat_operator.channels.reconcile import ChannelReconciler
from concordat_operator.history.reconcile import HistoryReconciler
from concordat_operator.hub import Hub
from concordat_operator.keys import load_or_create, publish_first
from concordat_operator.releases.reconcile import ReleaseReconciler
from concordat_operator.rounds.reconcile import RoundReconciler
from concordat_operator.settings import Settings
from concordat_operator.sites.reconcile import SiteReconciler
from concordat_operator.updates.reconcile import UpdateReconciler

log = logging.getLogger(__name__)

LEASE_NAME = "concordat-operator"


def main() -> None:
    """Run the operator until it is told to stop. Exits with 1 and one line when it cannot start or loses its Lease."""
    configure()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(serve(Settings.from_environment()))
    except (SettingsError, StatementError, ApiError, LeadershipLost, OSError) as error:
        log.error("cannot run", extra=fields(error=str(error)))
        sys.exit(1)


async def serve(settings: Settings, *, clock: Clock | None = None, stop: asyncio.Event | None = None) -> None:
    """Run the operator with these settings until `stop` is set or the process is told to stop."""
    cache, clock = Cache(), clock or SystemClock()
    async with Cluster() as cluster, RegistryStore(settings.registry_url) as registry:
        keys = await load_or_create(cluster, settings.namespace)
        await publish_first(cluster, settings.namespace, keys)
        log.info("starting", extra=fields(version=VERSION, contract_key=keys.contract.public.thumbprint))
        hub = Hub(settings, cluster, cache, registry, clock, keys)
        await run(
            controllers(hub),
            Options(
                namespaces=None,
                leader=LeaderConfig(namespace=settings.namespace, name=LEASE_NAME, identity=settings.identity),
                http_port=settings.http_port,
                job_selector=f"{LABEL_MANAGED_BY}={MANAGED_BY}",
            ),
            cluster=cluster,
            cache=cache,
            clock=clock,
            stop=stop,
        )


def controllers(hub: Hub) -> list[Controller]:
    """Return the reconcilers and what leads to them."""
    namespace, cache = hub.settings.namespace, hub.cache

    def itself(obj: Obj) -> list[Key]:
        return [obj.key]

    def its_round(update: Update) -> list[Key]:
        return [(update.spec.round_ref.namespace, update.spec.round_ref.name)]

    def labelled_round(job: Obj) -> list[Key]:
        name = (job["metadata"].get("labels") or {}).get(LABEL_ROUND)
        return [(namespace, name)] if name else []

    def release_round(release: Release) -> list[Key]:
        origin = [(namespace, release.spec.round_ref.name)] if release.spec.round_ref is not None else []
        return origin + uncontracted(release)

    def uncontracted(_: Obj) -> list[Key]:
        return [round_.key for round_ in cache.list(FederationRound, namespace) if round_.status.contract is None]

    def job_of(job: Obj) -> list[Key]:
        return [(job["metadata"]["namespace"], job["metadata"]["name"])]

    def updates_of(round_: FederationRound) -> list[Key]:
        return [u.key for u in cache.list(Update) if u.spec.round_ref.uid == round_.metadata.uid]

    def release_and_original(release: Release) -> list[Key]:
        return list(dict.fromkeys([release.key, (namespace, release.metadata.name)]))

    def undecided(_: Site) -> list[Key]:
        return [r.key for r in cache.list(Release, namespace) if r.status.lineage is None]

    def federation_of(round_: FederationRound) -> list[Key]:
        return [(namespace, round_.spec.federation)] if round_.ended else []

    def channels(_: Obj) -> list[Key]:
        return [channel.key for channel in cache.list(ReleaseChannel, namespace)]

    rounds: dict[KindLike, Callable[[Obj], list[Key]]] = {
        FederationRound: itself,
        Update: its_round,
        JOB: labelled_round,
        Release: release_round,
        Site: uncontracted,
        ReleaseChannel: uncontracted,
    }
    return [
        Controller("site", {Site: itself}, SiteReconciler(hub)),
        Controller("round", rounds, RoundReconciler(hub)),
        Controller("update", {Update: itself, JOB: job_of, FederationRound: updates_of}, UpdateReconciler(hub)),
        Controller("release", {Release: release_and_original, JOB: job_of, Site: undecided}, ReleaseReconciler(hub)),
        Controller("channel", {ReleaseChannel: itself, Release: channels, Site: channels}, ChannelReconciler(hub)),
        Controller("history", {FederationRound: federation_of}, HistoryReconciler(hub), workers=1, debounce=5.0),
    ]


if __name__ == "__main__":
    main()
