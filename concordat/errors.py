"""Errors of a reconcile: try again (Transient), a person must act (Terminal), or a bug (anything else)."""

from __future__ import annotations

from concordat.api.conditions import Reason


class Transient(Exception):
    """Something that passes by itself: the key is reconciled again after a delay.

    `retry_after` is in seconds; None means the queue's exponential backoff.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Terminal(Exception):
    """Something that stays wrong until an object changes. Reconcilers turn it into Stalled=True."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
