"""The progress of a round, counted as the objects change: looking at a thousand each time would cost too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from concordat.api import ConditionType, FederationRound, Release, Site, Update, find, is_true
from concordat.controller.kinds import KindLike

Key = tuple[str, str]


class Progress:
    """Sets of namespaces, by what they reached. Fed by a cache."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        """Sites that are Ready."""
        self.asked: dict[str, set[str]] = {}
        """By round: the namespaces with an Update; and so on."""
        self.consented: dict[str, set[str]] = {}
        self.submitted: dict[str, set[str]] = {}
        self.rounds: dict[str, FederationRound] = {}
        self.copies: dict[str, set[str]] = {}
        """By release: the namespaces with a copy."""
        self.decided: set[Key] = set()
        """Namespace and release of each copy that its site, or the evaluator, answered."""
        self.answered: set[tuple[str, str | None]] = set()
        """Namespace and release of each copy whose Ready says how it ended, with an answer or without."""
        self.champions: dict[str, str] = {}
        """Site to the release in use."""
        self._changed = asyncio.Event()

    def notice(self, kind: KindLike, old: Any, new: Any) -> None:
        """Listen to the cache."""
        if isinstance(new, Site):
            _put(self.ready, new.metadata.namespace, is_true(new.status.conditions, ConditionType.READY))
            if new.status.champion is not None:
                self.champions[new.metadata.namespace] = new.status.champion.release
        elif isinstance(new, Update):
            round_, site = new.spec.round_ref.name, new.spec.site
            self.asked.setdefault(round_, set()).add(site)
            for type_, reached in (
                (ConditionType.CONSENTED, self.consented),
                (ConditionType.SUBMITTED, self.submitted),
            ):
                _put(reached.setdefault(round_, set()), site, is_true(new.status.conditions, type_))
        elif isinstance(new, FederationRound):
            self.rounds[new.metadata.name] = new
        elif isinstance(new, Release):
            self.copies.setdefault(new.metadata.name, set()).add(new.metadata.namespace)
            if new.status.decision is not None:
                self.decided.add(new.key)
            ready = find(new.status.conditions, ConditionType.READY)
            if ready is not None and not ready.is_pending:
                self.answered.add(new.key)
        self._changed.set()

    def ended(self, round_: str) -> bool:
        """Return whether a round succeeded or failed."""
        found = self.rounds.get(round_)
        condition = find(found.status.conditions, ConditionType.SUCCEEDED) if found is not None else None
        return condition is not None and (condition.is_true or condition.is_false)

    def why(self, round_: str) -> str:
        """Return what a round's Ready says."""
        found = self.rounds.get(round_)
        condition = find(found.status.conditions, ConditionType.READY) if found is not None else None
        return f"{condition.reason}: {condition.message}" if condition is not None else "there is no round"

    def released(self, round_: str) -> bool:
        """Return whether a round led to an approved release."""
        found = self.rounds.get(round_)
        return found is not None and is_true(found.status.conditions, ConditionType.SUCCEEDED)

    def release(self, round_: str) -> str | None:
        """Return the name of the release that a round proposed."""
        found = self.rounds.get(round_)
        return found.status.release.name if found is not None and found.status.release is not None else None

    def adopted(self, round_: str) -> int:
        """Return how many sites use a round's release."""
        release = self.release(round_)
        return sum(1 for name in self.champions.values() if name == release)

    async def until(self, reached: Callable[[], bool], seconds: float) -> float:
        """Wait until it is so; returns the seconds. Raises TimeoutError."""
        started = time.monotonic()
        async with asyncio.timeout(seconds):
            while not reached():
                self._changed.clear()
                await self._changed.wait()
        return time.monotonic() - started


def _put(group: set[str], name: str, inside: bool) -> None:
    if inside:
        group.add(name)
    else:
        group.discard(name)
