"""The gateway's process: TLS in front, the registry behind, the hub's Memberships beside."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from concordat.api import FederationRound, Membership
from concordat.artifacts import Access, RegistryStore
from concordat.controller import (
    ApiError,
    Cache,
    Cluster,
    Controller,
    Key,
    Obj,
    Options,
    Result,
    SystemClock,
    configure,
    fields,
    garbage,
    run,
)
from concordat.controller.environment import SettingsError
from concordat.controller.http import listen
from concordat.statements import StatementError
from concordat_gateway import certificate
from concordat_gateway.budget import Budget, stored
from concordat_gateway.callers import Callers
from concordat_gateway.contracts import Contracts
from concordat_gateway.credentials import MOST_BYTES, Credentials
from concordat_gateway.door import Door, Handler
from concordat_gateway.grants import Grants
from concordat_gateway.keys import load_or_create, publish
from concordat_gateway.observer import ClusterObserver
from concordat_gateway.proxy import Gateway
from concordat_gateway.settings import Settings

log = logging.getLogger(__name__)

_RELOAD_SECONDS = 60.0
_CONNECTIONS = 64


def main() -> None:
    """Run the gateway until it is told to stop. Exits with 1 and one line when it cannot start."""
    configure()
    garbage.tame()
    try:
        asyncio.run(serve(Settings.from_environment()))
    except (SettingsError, StatementError, ApiError, OSError) as error:
        log.error("cannot run", extra=fields(error=str(error)))
        sys.exit(1)


async def serve(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """Run the gateway with these settings until `stop` is set or the process is told to stop."""
    cache, clock = Cache(), SystemClock()
    access = Access.basic(settings.credentials) if settings.credentials is not None else None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with (
        Cluster() as cluster,
        aiohttp.ClientSession(
            timeout=timeout, connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
        RegistryStore(settings.registry_url, access=access) as registry,
    ):
        hub = settings.namespace
        keys = await load_or_create(cluster, hub, clock.now())
        folder = settings.certificate or Path(tempfile.mkdtemp(prefix="tls-"))
        if settings.certificate is None:
            certificate.write(folder, keys.certificate)
        await publish(cluster, hub, keys, certificate.authority(folder))
        log.info("starting", extra=fields(key=keys.signing.public.thumbprint))
        budget = Budget(settings.site_bytes, partial(stored, registry))
        contracts = Contracts(hub, cluster, cache, registry)
        gateway = Gateway(hub, settings.registry_url, session, cache, budget, contracts, access)
        grants = Grants(hub, keys.signing, cache, contracts, ClusterObserver(cluster), clock, keys.public)
        app = application(Door(Callers(cluster, clock)), gateway, Credentials(grants))
        async with served(app, settings.port, folder):
            await run(
                [Controller("gateway", {Membership: _nobody, FederationRound: _nobody}, _nothing)],
                Options(namespaces=[settings.namespace], leader=None, http_port=settings.http_port),
                cluster=cluster,
                cache=cache,
                clock=clock,
                stop=stop,
            )


def application(door: Door, gateway: Gateway, credentials: Credentials | None = None) -> web.Application:
    """Return what is served: the registry's requests, and those for grants."""

    @web.middleware
    async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await door.enter(request, handler)

    app = web.Application(middlewares=[enter], client_max_size=MOST_BYTES)
    app.router.add_routes(credentials.routes() if credentials is not None else [])
    app.router.add_route("*", "/{path:.*}", gateway.handle)
    return app


@asynccontextmanager
async def served(app: web.Application, port: int, folder: Path) -> AsyncIterator[int]:
    """Serve with TLS 1.3 by the certificate in a folder, read again when it is renewed. Yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, folder)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    renewing = asyncio.create_task(_renew(context, folder))
    try:
        listening = listen(port)
        await web.SockSite(runner, listening, ssl_context=context).start()
        yield int(listening.getsockname()[1])
    finally:
        renewing.cancel()
        await runner.cleanup()


def _load(context: ssl.SSLContext, folder: Path) -> None:
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


async def _renew(context: ssl.SSLContext, folder: Path) -> None:
    shown = (folder / "tls.crt").read_bytes()
    while True:
        await asyncio.sleep(_RELOAD_SECONDS)
        try:
            if (now := (folder / "tls.crt").read_bytes()) != shown:
                _load(context, folder)
                shown = now
                log.info("the certificate was renewed")
        except (OSError, ssl.SSLError) as error:
            log.warning("the certificate is not renewed", extra=fields(error=str(error)))


def _nobody(_: Obj) -> tuple[Key, ...]:
    return ()


async def _nothing(_: Key) -> Result:
    return Result()


if __name__ == "__main__":
    main()
