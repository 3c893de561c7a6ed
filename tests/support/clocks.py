"""Clocks that tests set."""

from __future__ import annotations

from datetime import datetime, timedelta

from concordat.controller import Clock
from concordat_agent.hub_clock import HubClock


class SetHubClock(HubClock):
    """The hub's time as the test sets it, whatever the API server says; the site's clock is another if given."""

    def __init__(self, clock: Clock, machine: Clock | None = None) -> None:
        super().__init__(machine or clock, lambda: clock.now().timestamp())
        self._hub = clock

    @property
    def known(self) -> bool:
        """From the start."""
        return True

    def now(self) -> datetime:
        """Return the time that was set."""
        return self._hub.now()

    def tell(self, at: datetime) -> timedelta:
        """Ignore it."""
        return self.machine.now() - at
