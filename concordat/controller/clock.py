"""Time as a parameter: whoever needs the wall clock is given one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock time."""

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return datetime.now(UTC)


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("at needs a zone, for example datetime(2026, 11, 24, tzinfo=UTC)")
        self._at = at.astimezone(UTC)

    def now(self) -> datetime:
        """Return the time it was set to, plus what it was advanced by."""
        return self._at

    def advance(self, seconds: float) -> None:
        """Move forward by that many seconds."""
        self._at += timedelta(seconds=seconds)
