"""Running a program: sync the store, watch, elect, work, answer probes, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

from concordat.runtime import metrics
from concordat.runtime.client import Cluster
from concordat.runtime.clock import Clock
from concordat.runtime.controller import Controller, Obj
from concordat.runtime.errors import ApiError
from concordat.runtime.http import application, serve
from concordat.runtime.kinds import GVK, JOB, KindLike, gvk
from concordat.runtime.leader import Leader, LeaderConfig
from concordat.runtime.logs import fields
from concordat.runtime.store import Store
from concordat.runtime.watch import watch
from concordat.runtime.worker import Runner

log = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
_RELIST_SETTLE_SECONDS = 5.0
_SYNC_RETRY_SECONDS = 5.0


async def run(
    controllers: Sequence[Controller],
    *,
    cluster: Cluster,
    store: Store,
    clock: Clock,
    namespaces: Sequence[str] | None,
    job_selector: str = "",
    leader: LeaderConfig | None,
    http_port: int,
    stop: asyncio.Event | None = None,
    sweep_seconds: float = SWEEP_SECONDS,
    listening: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the controllers until `stop` is set or the process gets SIGTERM or SIGINT.

    `namespaces` None watches the whole cluster. `job_selector` is evaluated by the API server, so that
    foreign Jobs never come here. No reconcile starts before every watched kind has been listed completely
    and, with `leader`, before the Lease is held. `listening` is told the HTTP port (`http_port` 0 takes a free one).

    Raises LeadershipLost when the Lease is lost, and whatever else ends a part of it: the caller lets the
    process exit and be restarted. Reconciles in progress are cancelled, which they have to survive anyway.
    """
    stop = stop or asyncio.Event()
    host = Host(controllers, cluster, store, clock, namespaces, job_selector)
    async with AsyncExitStack() as stack:
        listening(await stack.enter_async_context(serve(application(host.problem, host.unready), http_port)))
        stack.callback(_handle_signals(stop))
        stack.callback(host.attach())
        parts = [stop.wait(), host.live(stop, sweep_seconds, leader)]
        await first(parts)


class Host:
    """The store, the runners of the controllers, and what keeps them up to date."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        cluster: Cluster,
        store: Store,
        clock: Clock,
        namespaces: Sequence[str] | None,
        job_selector: str,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._namespaces = namespaces
        self._selectors: Mapping[GVK, str] = {JOB: job_selector} if job_selector else {}
        self._kinds: list[KindLike] = list(dict.fromkeys(kind for c in controllers for kind in c.watches))
        self._runners = [Runner(controller) for controller in controllers]
        self._relisted = asyncio.Event()
        self._not_ready: str | None = "the initial lists have not been read\n"
        store.watch(self._kinds)

    def problem(self) -> str | None:
        """For /healthz: a reconcile that hangs. A blocked event loop does not answer at all."""
        return next((text for runner in self._runners if (text := runner.overdue())), None)

    def unready(self) -> str | None:
        """For /readyz: why the store is not complete yet. A standby with a complete store is ready."""
        return self._not_ready

    def attach(self) -> Callable[[], None]:
        """Let our writes feed the store, so that a pass sees what the one before wrote. Returns the undo."""

        def fed(obj: dict[str, Any]) -> None:
            self._store.feed(obj)

        def detach() -> None:
            self._cluster.on_write = None
            with suppress(ValueError):
                self._store.unsubscribe(self._changed)

        self._cluster.on_write = fed
        return detach

    async def live(
        self,
        stop: asyncio.Event,
        sweep_seconds: float,
        leader: LeaderConfig | None,
    ) -> None:
        """Sync, then watch and work. Ends only with an exception."""
        self._store.subscribe(self._changed)
        await self._sync()
        self._requeue_all(lambda: 0.0)
        watching = watch(
            self._cluster,
            [gvk(kind) for kind in self._kinds],
            self._event,
            namespaces=self._namespaces,
            selectors=self._selectors,
            started=lambda: _handle_signals(stop),
        )
        await first([watching, self._sweep_forever(sweep_seconds), self._act(leader)])

    async def _sync(self) -> None:
        """Read the initial lists; retried until they all succeed."""
        while True:
            try:
                for kind in self._kinds:
                    await self.sweep(kind)
            except ApiError as error:
                self._not_ready = f"{error}\n"
                log.warning("initial list failed", extra=fields(error=str(error)))
                await asyncio.sleep(_SYNC_RETRY_SECONDS)
            else:
                self._not_ready = None
                counts = {gvk(kind).resource: len(self._store.list(gvk(kind))) for kind in self._kinds}
                log.info("store synced", extra=fields(**counts))
                return

    async def sweep(self, kind: KindLike) -> int:
        """List a kind and drop from the store what no longer exists. Returns how many those were."""
        target = gvk(kind)
        selector = self._selectors.get(target)
        scopes = list(self._namespaces) if self._namespaces is not None and target.namespaced else [None]
        dropped = 0
        for scope in scopes:
            items, version = await self._cluster.list_at(kind, scope, selector)
            dropped += self._store.sync(kind, items, version, None if scope is None else [scope])
        return dropped

    async def _sweep_forever(self, every: float) -> None:
        """Find what the watches missed: soon after kopf listed anew, and every so often."""
        self._relisted.set()  # Between our initial list and kopf's an object may have gone.
        while True:
            relisted = True
            try:
                async with asyncio.timeout(every):
                    await self._relisted.wait()
                    await asyncio.sleep(min(_RELIST_SETTLE_SECONDS, every / 2))
            except TimeoutError:
                relisted = False
            self._relisted.clear()
            for kind in self._kinds:
                try:
                    if dropped := await self.sweep(kind):
                        metrics.SWEPT.labels(gvk(kind).kind).inc(dropped)
                        log.info("missed deletions found", extra=fields(kind=gvk(kind).kind, count=dropped))
                except ApiError as error:
                    log.warning("sweep failed", extra=fields(kind=gvk(kind).kind, error=str(error)))
            if not relisted:
                self._requeue_all(lambda: random.uniform(0.0, every))  # noqa: S311 - spreads load, guards nothing

    async def _act(self, leader: LeaderConfig | None) -> None:
        """Wait for the Lease, then work for as long as it is held."""
        parts: list[Awaitable[Any]] = []
        election = Leader(self._cluster, leader, self._clock) if leader is not None else None
        try:
            if election is not None:
                await election.acquire()
                parts.append(election.hold())
            metrics.LEADER.set(1)
            for runner in self._runners:
                parts += runner.workers()
            await first(parts)
        finally:
            if election is not None:
                await election.release()

    def _event(self, type_: str | None, obj: Mapping[str, Any]) -> None:
        metrics.WATCH_LAST_EVENT.labels(obj["kind"]).set(self._clock.now().timestamp())
        if type_ is None:
            self._relisted.set()
        if type_ == "DELETED":
            self._store.remove(obj)
        else:
            self._store.feed(obj)

    def _changed(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        for runner in self._runners:
            runner.notice(kind, (old, new))

    def _requeue_all(self, delay: Callable[[], float]) -> None:
        for kind in self._kinds:
            for obj in self._store.list(kind):
                for runner in self._runners:
                    runner.notice(kind, (obj,), delay())


async def first(parts: Iterable[Awaitable[Any]]) -> None:
    """Run all; when one ends, cancel the others, wait for them, and raise what it raised, if anything."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _handle_signals(stop: asyncio.Event) -> Callable[[], None]:
    """Stop on SIGTERM and SIGINT; only the main thread can. Returns the undo."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def undo() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    return undo
