"""Limits of what a site may send into one of its repositories: a disk that one member fills is full for all."""

from __future__ import annotations

import logging
from collections import OrderedDict

from concordat.controller import fields

log = logging.getLogger(__name__)

_MOST_KNOWN = 20_000
_ALARM = 0.8


class Budget:
    """Bytes that were sent into each repository, since this process began."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sent: OrderedDict[str, int] = OrderedDict()

    def take(self, repository: str, size: int) -> bool:
        """Count bytes that are about to be sent; False, and nothing counted, if they are too many."""
        before = self._sent.get(repository, 0)
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
