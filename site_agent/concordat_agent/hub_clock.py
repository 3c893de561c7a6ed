"""The hub's time: deadlines are the hub's, and the site's own clock may be wrong or set anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from concordat.controller import Clock, SystemClock

CLOCK_SECONDS = 1.0
"""Until somebody who needs the hub's time looks again whether it is known."""


class HubClock:
    """The API server's time as it last told it, carried on by a clock that nobody sets.

    Until it was told for the first time it is the machine's clock, and not `known`: no deadline is judged by it.
    """

    def __init__(self, machine: Clock | None = None, elapsed: Callable[[], float] = time.monotonic) -> None:
        self.machine = machine or SystemClock()
        self.elapsed = elapsed
        """Seconds since some moment; never set back."""
        self._told: tuple[datetime, float] | None = None

    @property
    def known(self) -> bool:
        """Return whether the API server has told its time."""
        return self._told is not None

    def now(self) -> datetime:
        """Return the hub's time, in UTC."""
        if self._told is None:
            return self.machine.now()
        at, since = self._told
        return at + timedelta(seconds=self.elapsed() - since)

    def tell(self, at: datetime) -> timedelta:
        """Set it to the API server's time. Returns how far the machine's clock is ahead."""
        self._told = (at, self.elapsed())
        return self.machine.now() - at


def write_time(written: Mapping[str, Any], manager: str) -> datetime | None:
    """Return when the API server made the last write of `manager`, from the object it answered with."""
    times = [
        entry["time"]
        for entry in written["metadata"].get("managedFields", ())
        if entry.get("manager") == manager and "time" in entry
    ]
    return max((datetime.fromisoformat(text) for text in times), default=None)
