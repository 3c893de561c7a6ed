"""The part of the registry's content that a process knows: manifests and small files that it read or sent."""

from __future__ import annotations

from collections import OrderedDict

LARGEST = 1 << 20
"""Nothing larger is kept; a contract of 1,000 sites has 0.5 MB, its statement 0.7 MB."""
_TOTAL = 4 << 20
_OVERHEAD = 512
"""Bytes that an entry takes beside its content, about."""


class Memory:
    """Content by repository and digest, at most 4 MiB in all; what was not used for longest goes first.

    It is addressed by what it hashes to, so it is never out of date. That the registry still has it, it does not say.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._size = 0

    def keep(self, repository: str, digest: str, data: bytes) -> None:
        """Keep content that hashes to its digest, unless it is too large."""
        self.forget(repository, digest)
        if len(data) > LARGEST:
            return
        self._entries[repository, digest] = data
        self._size += len(data) + _OVERHEAD
        while self._size > _TOTAL:
            self.forget(*next(iter(self._entries)))

    def get(self, repository: str, digest: str) -> bytes | None:
        """Return the content; None if it is not kept."""
        data = self._entries.get((repository, digest))
        if data is not None:
            self._entries.move_to_end((repository, digest))
        return data

    def forget(self, repository: str, digest: str) -> None:
        """Drop content, if it is kept."""
        data = self._entries.pop((repository, digest), None)
        if data is not None:
            self._size -= len(data) + _OVERHEAD
