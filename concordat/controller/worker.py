"""The workers: one reconcile per key, and what follows from how it ended."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from concordat.controller import metrics
from concordat.controller.definition import Controller, Key, Obj, Watch
from concordat.controller.errors import ApiError, Conflict, NotFound
from concordat.controller.kinds import KindLike
from concordat.controller.logs import fields
from concordat.controller.queue import WorkQueue
from concordat.errors import Terminal, Transient

log = logging.getLogger(__name__)

OVERDUE = 60.0
"""Seconds a reconcile may exceed its timeout before the process counts as unhealthy."""

_RACES_UNTIL_LOUD = 3
_ENDS_REMEMBERED = 1024


class Runner:
    """A controller with its queue and its workers."""

    def __init__(self, controller: Controller, chance: Callable[[], float] = random.random) -> None:
        self.controller = controller
        self.queue: WorkQueue[Key] = WorkQueue(chance)
        self._busy: dict[Key, float] = {}
        self._ended: dict[Key, float] = {}
        """When the last pass of a key ended, as long as an interval of a watch may depend on it."""
        watches = [watch for kind in controller.watches for watch in controller.watches_of(kind)]
        self._intervals = {watch.interval for watch in watches if watch.interval is not None}
        self._now = asyncio.get_running_loop().time
        metrics.QUEUE_DEPTH.labels(controller.name).set_function(lambda: self.queue.depth)
        metrics.LONGEST_RUNNING.labels(controller.name).set_function(self._longest)

    def notice(self, kind: KindLike, old: Obj | None, new: Obj | None, delay: float | None = None) -> None:
        """Have the keys reconciled to which it matters that `old` is `new` now; None where it was or is absent.

        Due after `delay`; by default after the debounce, or later if the watch has an interval.
        """
        for watch in self.controller.watches_of(kind):
            objects = [obj for obj in (old, new) if obj is not None]
            for key in self._concerned(watch, objects):
                self.queue.add(key, self._delay(key, watch) if delay is None else delay)

    def workers(self) -> list[Coroutine[Any, Any, None]]:
        """Return the workers' coroutines; they never end."""
        return [self._work() for _ in range(self.controller.workers)]

    def overdue(self) -> str | None:
        """Return what hangs, in words, or None."""
        for key, since in self._busy.items():
            if (age := self._now() - since) > self.controller.timeout + OVERDUE:
                return f"{self.controller.name} {'/'.join(key)} has been in reconcile for {age:.0f} s\n"
        return None

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            started = self._busy[key] = self._now()
            try:
                result = await self._reconcile(key)
                metrics.RECONCILE_TOTAL.labels(self.controller.name, result).inc()
            finally:
                metrics.RECONCILE_SECONDS.labels(self.controller.name).observe(self._now() - started)
                del self._busy[key]
                self._note_end(key)
                self.queue.done(key)
            # A reconcile that found nothing to do has not waited for anything: others have their turn now.
            await asyncio.sleep(0)

    async def _reconcile(self, key: Key) -> str:
        """Reconcile once; returns the outcome for the metric."""
        try:
            async with asyncio.timeout(self.controller.timeout):
                result = await self.controller.reconcile(key)
        except (Conflict, NotFound) as error:
            # A race with someone else's write or deletion: normal, unless it does not end.
            failures = self._retry(key, first_free=True)
            if failures >= _RACES_UNTIL_LOUD:
                self._log(logging.WARNING, key, error)
            return "conflict"
        except (Transient, TimeoutError) as error:
            self._retry(key, at_least=getattr(error, "retry_after", None))
            self._log(logging.WARNING, key, error)
            return "transient"
        except Terminal as error:
            self.queue.succeeded(key)
            self._log(logging.ERROR, key, error)
            return "terminal"
        except ApiError as error:
            self._retry(key)
            self._log(logging.ERROR, key, error)
            return "api_error"
        except Exception as error:
            self._retry(key)
            self._log(logging.ERROR, key, error, bug=True)
            return "bug"
        self.queue.succeeded(key)
        if result.requeue_after is None:
            return "success"
        self.queue.add(key, max(0.0, result.requeue_after))
        return "requeue_after"

    def _retry(self, key: Key, at_least: float | None = None, *, first_free: bool = False) -> int:
        metrics.QUEUE_RETRIES.labels(self.controller.name).inc()
        return self.queue.retry(key, at_least, first_free=first_free)

    def _log(self, level: int, key: Key, error: Exception, *, bug: bool = False) -> None:
        log.log(
            level,
            "reconcile failed (bug)" if bug else "reconcile failed",
            extra=fields(
                controller=self.controller.name,
                namespace=key[0],
                name=key[1],
                error=f"{type(error).__name__}: {error}",
            ),
            exc_info=error if bug else None,
        )

    def _concerned(self, watch: Watch, states: list[Obj]) -> dict[Key, None]:
        """Return the keys that an object concerns, given its old and its new state, or the only one."""
        keys: dict[Key, None] = {}
        try:
            if len(states) == 2 and watch.relevant is not None and _uid(states[0]) == _uid(states[1]):
                states = [] if watch.relevant(states[0]) == watch.relevant(states[1]) else states
        except Exception:
            self._bug()
        for state in states:
            try:
                keys |= dict.fromkeys(watch.keys(state))
            except Exception:
                self._bug()
        return keys

    def _bug(self) -> None:
        log.exception("bug: no keys for an object", extra=fields(controller=self.controller.name))
        metrics.RECONCILE_TOTAL.labels(self.controller.name, "bug").inc()

    def _delay(self, key: Key, watch: Watch) -> float:
        """Return the seconds from now to the next pass over a change."""
        now, interval = self._now(), watch.interval() if watch.interval is not None else 0.0
        last = now if key in self._busy else self._ended.get(key, now - interval)
        return max(self.controller.debounce, last + interval - now)

    def _note_end(self, key: Key) -> None:
        if not self._intervals:
            return
        now = self._now()
        if len(self._ended) >= _ENDS_REMEMBERED:
            longest = max(interval() for interval in self._intervals)
            self._ended = {k: at for k, at in self._ended.items() if now - at < longest}
        self._ended[key] = now

    def _longest(self) -> float:
        return self._now() - min(self._busy.values()) if self._busy else 0.0


def _uid(obj: Obj) -> str:
    return str(obj["metadata"].get("uid", "") if isinstance(obj, dict) else obj.metadata.uid)
