"""Limits of what a site may send into one of its repositories: a disk that one member fills is full for all."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from concordat.artifacts import PERMANENT_REGISTRY_ERRORS, RegistryStore
from concordat.controller import fields

log = logging.getLogger(__name__)

_MOST_KNOWN = 20_000
_ALARM = 0.8


class Budget:
    """Bytes that were sent into each repository: since this process began, and what was `stored` there before."""

    def __init__(self, limit: int, stored: Callable[[str], Awaitable[int]]) -> None:
        self._limit, self._stored = limit, stored
        self._sent: OrderedDict[str, int] = OrderedDict()

    async def take(self, repository: str, size: int) -> bool:
        """Count bytes that are about to be sent; False, and nothing counted, if they are too many.

        Raises ArtifactError if the registry does not say what is there already.
        """
        if repository not in self._sent:
            found = await self._stored(repository)
            self._sent.setdefault(repository, found)
        before = self._sent[repository]
        after = before + size
        if after > self._limit:
            return False
        if before <= _ALARM * self._limit < after:
            log.warning("a site's storage is nearly used up", extra=fields(repository=repository, bytes=after))
        self._sent[repository] = after
        self._sent.move_to_end(repository)
        while len(self._sent) > _MOST_KNOWN:
            self._sent.popitem(last=False)
        return True


async def stored(registry: RegistryStore, repository: str) -> int:
    """Return the bytes of a repository's artifacts; what nothing names is gone when the registry starts again."""
    total = 0
    for ref in await registry.artifacts(repository):
        try:
            total += sum(file.size for file in (await registry.files(ref)).values())
        except PERMANENT_REGISTRY_ERRORS:
            continue  # Deleted in this moment, or no artifact of ours.
    return total
