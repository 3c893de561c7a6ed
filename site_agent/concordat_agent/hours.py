"""The hours of the day in which a site consents, by the clocks of its own time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from concordat.api.types import Model

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_MINUTE = timedelta(minutes=1)


def _time_of_day(value: Any) -> Any:
    # YAML may read 20:00 without quotes as the number 1200.
    if not (isinstance(value, str) and _TIME.fullmatch(value)):
        raise ValueError('write a time of day in quotes, from "00:00" to "23:59"')
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone here: take a name of the tz database, for example Europe/Berlin") from None
    return name


class Hours(Model):
    """A span of every day. One that ends before it begins lasts over midnight."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    time_zone: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_zone)]
    """Name of a time zone in the tz database, for example Europe/Berlin."""
    begin: Annotated[str, BeforeValidator(_time_of_day), Field(alias="from")]
    """First minute, for example "20:00"."""
    end: Annotated[str, BeforeValidator(_time_of_day), Field(alias="to")]
    """First minute that is outside again, for example "06:00"."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.begin == self.end:
            raise ValueError("from and to are the same, which is no time at all: leave hours out to allow any time")
        return self

    def __str__(self) -> str:
        """Return the hours as messages name them."""
        return f"{self.begin} to {self.end} {self.time_zone}"

    def include(self, moment: datetime) -> bool:
        """Return whether the clocks of the time zone show a time within the hours."""
        shown = self.shown(moment)
        if self.begin < self.end:
            return self.begin <= shown < self.end
        return shown >= self.begin or shown < self.end

    def shown(self, moment: datetime) -> str:
        """Return what the clocks of the time zone show, to the minute."""
        return f"{moment.astimezone(ZoneInfo(self.time_zone)):%H:%M}"

    def next_opening(self, moment: datetime, before: datetime) -> datetime | None:
        """Return `moment` if it is within the hours, else when they next begin; None if not before `before`."""
        opening = moment.astimezone(UTC)
        # Minute by minute, because local clocks jump. The hours come every day, so this ends within two.
        while not self.include(opening):
            opening = opening.replace(second=0, microsecond=0) + _MINUTE
            if opening >= before:
                return None
        return opening
