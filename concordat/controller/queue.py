"""A work queue: each key at most once in it and in work, due at a time, backed off after failures."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BASE, CAP, JITTER = 1.0, 300.0, 0.2


def backoff(failures: int, chance: float) -> float:
    """Return the seconds to wait after n failures in a row: 1, 2, 4 … 300, ±20 %. `chance` is uniform in [0, 1)."""
    if failures < 1:
        return 0.0
    delay = CAP if failures > 16 else min(CAP, BASE * 2.0 ** (failures - 1))
    return delay * (1 - JITTER + 2 * JITTER * chance)


class Schedule(Generic[K]):
    """The keys and when they are due; plain data, time as a parameter.

    A key is in at most one of the states waiting, working, or working and waiting again; the last one becomes
    waiting when the work is done. Of two due times for one key the earlier counts.
    """

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._count = 0

    def add(self, key: K, due: float) -> None:
        """Have the key worked on at `due` or, if that was agreed before, earlier."""
        known = self._due.get(key)
        if known is not None and known <= due:
            return
        self._due[key] = due
        if key not in self._working:
            self._push(key, due)

    def take(self, now: float) -> K | None:
        """Return the key that has been due longest, now in work; None if none is due."""
        self._prune()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._due[key]
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Note that the work on a key taken before has ended."""
        self._working.remove(key)
        if key in self._due:
            self._push(key, self._due[key])

    def failed(self, key: K) -> int:
        """Count a failure and return how many there were in a row."""
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._failures[key]

    def succeeded(self, key: K) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    def next_due(self) -> float | None:
        """Return when the next key that is not in work becomes due; None if none waits."""
        self._prune()
        return self._heap[0][0] if self._heap else None

    def depth(self, now: float) -> int:
        """Return how many keys are due and not in work."""
        return sum(1 for key, due in self._due.items() if due <= now and key not in self._working)

    def _push(self, key: K, due: float) -> None:
        self._count += 1  # Ties are served in order of arrival, and keys need not be comparable.
        heapq.heappush(self._heap, (due, self._count, key))

    def _prune(self) -> None:
        while self._heap and (self._heap[0][2] in self._working or self._due.get(self._heap[0][2]) != self._heap[0][0]):
            heapq.heappop(self._heap)


class WorkQueue(Generic[K]):
    """A Schedule on the event loop's clock, for several workers."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._schedule: Schedule[K] = Schedule()
        self._changed = asyncio.Event()
        self._chance = chance
        self._now = asyncio.get_running_loop().time

    def add(self, key: K, delay: float = 0.0) -> None:
        """Have the key worked on in `delay` seconds, or earlier if that was asked before."""
        self._schedule.add(key, self._now() + delay)
        self._changed.set()

    def retry(self, key: K, at_least: float | None = None, *, first_free: bool = False) -> int:
        """Put a key back after a failure and return how many there were in a row.

        `at_least` is a delay the server asked for. With `first_free` the first failure costs no delay.
        """
        failures = self._schedule.failed(key)
        delay = backoff(failures - 1 if first_free else failures, self._chance())
        self.add(key, max(delay, at_least or 0.0))
        return failures

    def succeeded(self, key: K) -> None:
        """Forget the failures of a key."""
        self._schedule.succeeded(key)

    def done(self, key: K) -> None:
        """Note that the work on a key from `take` has ended, well or not."""
        self._schedule.done(key)
        self._changed.set()

    async def take(self) -> K:
        """Wait for a key that is due. The caller must call `done` with it."""
        while True:
            if (key := self._schedule.take(self._now())) is not None:
                return key
            due = self._schedule.next_due()
            # One flag for all waiters is enough: each of them looks again whenever anything changed.
            self._changed.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                continue

    @property
    def depth(self) -> int:
        """Return how many keys are due and not in work."""
        return self._schedule.depth(self._now())
