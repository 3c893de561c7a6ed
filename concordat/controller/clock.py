"""Time as a parameter: whoever needs the wall clock is given one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of wall-clock time, and of time that never jumps."""

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment of this process; setting the machine's clock does not change them."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment of this process; setting the machine's clock does not change them."""
        return time.monotonic()


class FixedClock:
    """A clock that moves only when told to."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("at needs a zone, for example datetime(2026, 11, 24, tzinfo=UTC)")
        self._at = at.astimezone(UTC)
        self._passed = 0.0

    def now(self) -> datetime:
        """Return the time it was set to, plus what it was advanced by."""
        return self._at

    def monotonic(self) -> float:
        """Return the seconds it was advanced by."""
        return self._passed

    def advance(self, seconds: float) -> None:
        """Move forward by that many seconds."""
        self._at += timedelta(seconds=seconds)
        self._passed += seconds

    def jump(self, seconds: float) -> None:
        """Change the wall-clock time by that many seconds, as setting a machine's clock does; no time passes."""
        self._at += timedelta(seconds=seconds)
