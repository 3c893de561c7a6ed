"""What a program gives the manager: which objects it looks at, and one reconcile per key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from concordat.controller.kinds import KindLike

Key = tuple[str, str]
"""Namespace and name of the object to reconcile."""

Obj = Any
"""A watched object: the typed model of one of our kinds, or a dict for kinds given as GVK."""

Keys = Callable[[Obj], Iterable[Key]]
"""From an object to the keys it concerns. Called for its old and its new state."""


@dataclass(frozen=True)
class Result:
    """The end of a reconcile: done until an event, or look again after that many seconds."""

    requeue_after: float | None = None


@dataclass(frozen=True)
class Watch:
    """Which keys the objects of a kind concern, and which of their changes are news to these."""

    keys: Keys
    relevant: Callable[[Obj], object] | None = None
    """The part of an object that matters to these keys; a change of the rest leads to nothing. None: everything."""
    interval: Callable[[], float] | None = None
    """Returns the seconds between two passes of a key over such changes, so that a stream of them does not lead to a
    pass for each. The first after a pause waits only for the debounce."""


Watches = Mapping[KindLike, Keys | tuple[Watch, ...]]
"""For each watched kind what its objects concern. Keys alone are a Watch of every change."""


@dataclass(frozen=True)
class Controller:
    """One reconcile function, and the events that lead to it.

    `reconcile` gets a key, reads the cache, and may be stopped at any await: it has to leave the cluster such
    that the next call goes on. It raises `Transient` or `Conflict` to be called again, `Terminal` never (it
    writes Stalled instead); anything else is a bug.
    """

    name: str
    """Label in metrics and logs, for example round."""
    watches: Watches
    reconcile: Callable[[Key], Awaitable[Result]]
    workers: int = 8
    """Keys reconciled at the same time; one key never is twice."""
    debounce: float = 0.1
    """Seconds an event waits for others of the same key, so that a burst leads to one reconcile."""
    timeout: float = 300.0
    """Seconds after which a reconcile is cancelled and tried again."""

    def watches_of(self, kind: KindLike) -> tuple[Watch, ...]:
        """Return what the objects of a kind concern; nothing if the kind is not watched."""
        watches = self.watches.get(kind, ())
        return watches if isinstance(watches, tuple) else (Watch(watches),)

    def keys(self, kind: KindLike, obj: Obj) -> list[Key]:
        """Return every key that an object concerns."""
        return [key for watch in self.watches_of(kind) for key in watch.keys(obj)]
