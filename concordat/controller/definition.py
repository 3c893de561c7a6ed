"""What a program gives the host: which objects it looks at, and one reconcile per key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from concordat.controller.kinds import KindLike

Key = tuple[str, str]
"""Namespace and name of the object to reconcile."""

Obj = Any
"""A watched object: the typed model of one of our kinds, or a dict for kinds given as GVK."""


@dataclass(frozen=True)
class Result:
    """The end of a reconcile: done until an event, or look again after that many seconds."""

    requeue_after: float | None = None


@dataclass(frozen=True)
class Controller:
    """One reconcile function, and the events that lead to it.

    `reconcile` gets a key, reads the cache, and may be stopped at any await: it has to leave the cluster such
    that the next call goes on. It raises `Transient` or `Conflict` to be called again, `Terminal` never (it
    writes Stalled instead); anything else is a bug.
    """

    name: str
    """Label in metrics and logs, for example round."""
    watches: Mapping[KindLike, Callable[[Obj], Iterable[Key]]]
    """For each watched kind: which keys an object of it concerns. Called for its old and its new state."""
    reconcile: Callable[[Key], Awaitable[Result]]
    workers: int = 8
    """Keys reconciled at the same time; one key never is twice."""
    debounce: float = 0.1
    """Seconds an event waits for others of the same key, so that a burst leads to one reconcile."""
    timeout: float = 300.0
    """Seconds after which a reconcile is cancelled and tried again."""
