"""How condition messages name sites and times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

_NAMED = 10


def until(time: datetime) -> str:
    """Return date and time in UTC, to the minute: 2026-11-24 14:05Z."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")


def names(sites: Iterable[str]) -> str:
    """Return the names sorted, the first ten by name, the rest counted."""
    known = sorted(sites)
    shown = ", ".join(known[:_NAMED])
    return shown if len(known) <= _NAMED else f"{shown} and {len(known) - _NAMED} more"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: 1 site, 2 sites."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
