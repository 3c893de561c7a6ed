"""The operator's process: reads its settings, connects, and runs the reconcilers while it holds the Lease."""

from __future__ import annotations

import asyncio
import logging
import sys

from prometheus_client import disable_created_metrics

from concordat.api.types import LABEL_MANAGED_BY, MANAGED_BY
from concordat.artifacts import Access, RegistryStore
from concordat.controller import (
    JOB,
    LEASE,
    ApiError,
    Cache,
    Clock,
    Cluster,
    LeaderConfig,
    Options,
    SystemClock,
    configure,
    fields,
    garbage,
    run,
)
from concordat.controller.environment import SettingsError
from concordat.statements import StatementError
from concordat_operator import VERSION
from concordat_operator.controllers import controllers
from concordat_operator.hub import Hub
from concordat_operator.keys import load_or_create, publish_first, with_gateway
from concordat_operator.settings import Settings
from concordat_operator.slim import slim_job

log = logging.getLogger(__name__)

LEASE_NAME = "concordat-operator"


def main() -> None:
    """Run the operator until it is told to stop. Exits with 1 and one line when it cannot start."""
    configure()
    garbage.tame()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        asyncio.run(serve(Settings.from_environment()))
    except (SettingsError, StatementError, ApiError, OSError) as error:
        log.error("cannot run", extra=fields(error=str(error)))
        sys.exit(1)


async def serve(settings: Settings, *, clock: Clock | None = None, stop: asyncio.Event | None = None) -> None:
    """Run the operator with these settings until `stop` is set or the process is told to stop."""
    cache, clock = Cache({JOB: slim_job}), clock or SystemClock()
    rate = settings.writes_per_second
    async with Cluster(qps=rate, burst=int(2 * rate)) as cluster:
        keys = await with_gateway(await load_or_create(cluster, settings.namespace), cluster, settings.namespace)
        await publish_first(cluster, settings.namespace, keys)
        log.info("starting", extra=fields(version=VERSION, contract_key=keys.contract.public.thumbprint))
        async with RegistryStore(settings.registry_url, access=Access.of_pod(keys.gateway_ca)) as registry:
            hub = Hub(settings, cluster, cache, registry, clock, keys)
            await run(
                controllers(hub),
                Options(
                    namespaces=None,
                    leader=LeaderConfig(namespace=settings.namespace, name=LEASE_NAME, identity=settings.identity),
                    http_port=settings.http_port,
                    selectors=dict.fromkeys((JOB, LEASE), f"{LABEL_MANAGED_BY}={MANAGED_BY}"),
                ),
                cluster=cluster,
                cache=cache,
                clock=clock,
                stop=stop,
            )


if __name__ == "__main__":
    main()
