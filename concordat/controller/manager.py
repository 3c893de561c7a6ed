"""Running a program: sync the cache, watch, elect, work, answer probes, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from concordat.controller import metrics
from concordat.controller.cache import Cache
from concordat.controller.client import Cluster
from concordat.controller.clock import Clock
from concordat.controller.concurrency import Pace
from concordat.controller.definition import Controller, Obj
from concordat.controller.errors import ApiError
from concordat.controller.http import application, serve
from concordat.controller.kinds import GVK, KindLike, gvk
from concordat.controller.leader import Leader, LeaderConfig, LeadershipLost
from concordat.controller.logs import fields
from concordat.controller.loop import watch_blocks
from concordat.controller.watch import watch
from concordat.controller.worker import Runner

log = logging.getLogger(__name__)

RESYNC_SECONDS = 600.0
_RELIST_SETTLE_SECONDS = 5.0
_SYNC_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class Options:
    """A program's settings: the objects it watches, and how it runs."""

    namespaces: Sequence[str] | None
    """Namespaces to watch; None watches the whole cluster."""
    leader: LeaderConfig | None
    """Lease to hold before anything is reconciled; None works without one."""
    http_port: int
    """Port of probes and metrics; 0 takes a free one."""
    selectors: Mapping[GVK, str] = field(default_factory=dict)
    """Label selectors of what to watch, evaluated by the API server, so that foreign Jobs never come here."""
    resync_seconds: float = RESYNC_SECONDS
    """Time between two full lists of every watched kind."""


async def run(
    controllers: Sequence[Controller],
    options: Options,
    *,
    cluster: Cluster,
    cache: Cache,
    clock: Clock,
    stop: asyncio.Event | None = None,
    listening: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the controllers until `stop` is set or the process gets SIGTERM or SIGINT.

    No reconcile starts before every watched kind has been listed completely and, with a leader, before the Lease is
    held. `listening` is told the HTTP port.

    Where the Lease is lost, reconciles in progress are cancelled, which they have to survive anyway, and the process
    stands by again, with its cache. Raises whatever ends a part of it: the caller lets the process exit and be
    restarted.
    """
    stop = stop or asyncio.Event()
    manager = Manager(controllers, options, cluster=cluster, cache=cache, clock=clock)
    async with AsyncExitStack() as stack:
        probes = application(manager.problem, manager.unready)
        listening(await stack.enter_async_context(serve(probes, options.http_port)))
        stack.callback(_handle_signals(stop))
        stack.callback(manager.attach())
        await first([stop.wait(), manager.live(stop), watch_blocks()])


class Manager:
    """The cache, the runners of the controllers, and what keeps them up to date."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        options: Options,
        *,
        cluster: Cluster,
        cache: Cache,
        clock: Clock,
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._cache = cache
        self._clock = clock
        self._namespaces = options.namespaces
        self._kinds: list[KindLike] = list(dict.fromkeys(kind for c in controllers for kind in c.watches))
        self._runners = [Runner(controller) for controller in controllers]
        self._relisted = asyncio.Event()
        self._not_ready: str | None = "the initial lists have not been read\n"
        cache.watch(self._kinds)

    def problem(self) -> str | None:
        """For /healthz: a reconcile that hangs. A blocked event loop does not answer at all."""
        return next((text for runner in self._runners if (text := runner.overdue())), None)

    def unready(self) -> str | None:
        """For /readyz: why the cache is not complete yet. A standby with a complete cache is ready."""
        return self._not_ready

    def attach(self) -> Callable[[], None]:
        """Let our writes feed the cache, so that a pass sees what the one before wrote. Returns the undo."""

        def fed(obj: dict[str, Any]) -> None:
            self._cache.feed(obj)

        def detach() -> None:
            self._cluster.on_write = None
            with suppress(ValueError):
                self._cache.unsubscribe(self._changed)

        self._cluster.on_write = fed
        return detach

    async def live(self, stop: asyncio.Event) -> None:
        """Sync, then watch and work. Ends only with an exception."""
        self._cache.subscribe(self._changed)
        await self._sync()
        await self._requeue_all(lambda: 0.0)
        watching = watch(
            self._cluster,
            [gvk(kind) for kind in self._kinds],
            self._event,
            namespaces=self._namespaces,
            selectors=self._options.selectors,
            started=lambda: _handle_signals(stop),
        )
        await first([watching, self._resync_forever(self._options.resync_seconds), self._act(self._options.leader)])

    async def _sync(self) -> None:
        """Read the initial lists; retried until they all succeed."""
        while True:
            try:
                for kind in self._kinds:
                    await self.resync(kind)
            except ApiError as error:
                self._not_ready = f"{error}\n"
                log.warning("initial list failed", extra=fields(error=str(error)))
                await asyncio.sleep(_SYNC_RETRY_SECONDS)
            else:
                self._not_ready = None
                counts = {gvk(kind).resource: len(self._cache.list(gvk(kind))) for kind in self._kinds}
                log.info("cache synced", extra=fields(**counts))
                return

    async def resync(self, kind: KindLike) -> int:
        """List a kind and drop from the cache what no longer exists. Returns how many those were."""
        target = gvk(kind)
        selector = self._options.selectors.get(target)
        scopes = list(self._namespaces) if self._namespaces is not None and target.namespaced else [None]
        dropped = 0
        for scope in scopes:
            items, version = await self._cluster.list_at(kind, scope, selector)
            dropped += await self._cache.sync(kind, items, version, None if scope is None else [scope])
        return dropped

    async def _resync_forever(self, every: float) -> None:
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
                    if dropped := await self.resync(kind):
                        metrics.RESYNC_REMOVED.labels(gvk(kind).kind).inc(dropped)
                        log.info("missed deletions found", extra=fields(kind=gvk(kind).kind, count=dropped))
                except ApiError as error:
                    log.warning("resync failed", extra=fields(kind=gvk(kind).kind, error=str(error)))
            if not relisted:
                await self._requeue_all(lambda: random.uniform(0.0, every))  # noqa: S311 - spreads load, guards nothing

    async def _act(self, leader: LeaderConfig | None) -> None:
        """Work; with a Lease, for as long as it is held, and again whenever it is."""
        if leader is None:
            await self._work()
            return
        election = Leader(self._cluster, leader, self._clock)
        try:
            while True:
                await election.acquire()
                try:
                    # Ends with the loss of the Lease, after every reconcile was cancelled and has ended.
                    await first([election.hold(), self._work()])
                except LeadershipLost as error:
                    log.warning("standing by again", extra=fields(error=str(error)))
                # Another leader may have acted, and keys that were in work are in no queue.
                await self._requeue_all(lambda: 0.0)
        finally:
            await election.release()

    async def _work(self) -> None:
        metrics.LEADER.set(1)
        try:
            await first([worker for runner in self._runners for worker in runner.workers()])
        finally:
            metrics.LEADER.set(0)

    def _event(self, type_: str | None, obj: Mapping[str, Any]) -> None:
        metrics.WATCH_LAST_EVENT.labels(obj["kind"]).set(self._clock.now().timestamp())
        if type_ is None:
            self._relisted.set()
        if type_ == "DELETED":
            self._cache.remove(obj)
        else:
            self._cache.feed(obj)

    def _changed(self, kind: KindLike, old: Obj | None, new: Obj | None) -> None:
        for runner in self._runners:
            runner.notice(kind, old, new)

    async def _requeue_all(self, delay: Callable[[], float]) -> None:
        pace = Pace()
        for kind in self._kinds:
            for obj in self._cache.list(kind):
                for runner in self._runners:
                    runner.notice(kind, None, obj, delay())
                await pace()


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
