"""Which contracts the site consented to, when, and for how many seconds: the agent's own record, beside its key.

It outlives the Updates, which the hub can delete, so a round made again does not give the day's budget back.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from concordat.api.types import Model, Sha256, Time
from concordat_agent.files import write_atomically

_DAY = timedelta(days=1)
# No round takes updates for longer than a week after its contract, and the last consent before it counts for a day.
_KEPT = timedelta(days=8)


class _Entry(Model):
    model_config = ConfigDict(extra="forbid")

    contract: Sha256
    at: Time
    wall_seconds: Annotated[int, Field(ge=0)]


class _Record(Model):
    model_config = ConfigDict(extra="forbid")

    consents: list[_Entry]


class LedgerError(Exception):
    """The record cannot be read; without it the day's budget could be spent twice."""


class Ledger:
    """The consents of the last days, in the order in which they were given."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._record = _Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self._record = _Record(consents=[])
        except ValidationError as error:
            raise LedgerError(
                f"{path} is no record of consents ({error.error_count()} errors): restore it from a backup of the "
                "state volume, or remove it if this site may spend the day's budget (maxWallSecondsPerDay) again"
            ) from None

    def at(self, contract: str) -> datetime | None:
        """Return when the site consented to a contract, by the digest of contract.json; None if it did not."""
        return next((entry.at for entry in self._record.consents if entry.contract == contract), None)

    def spent_seconds(self, contract: str, at: datetime) -> int:
        """Return the wall-clock seconds of the consents given in the 24 hours before `at`.

        Neither the contract's own counts nor those given after it, so the same contract gets the same answer again.
        """
        earlier = takewhile(lambda entry: entry.contract != contract, self._record.consents)
        return sum(entry.wall_seconds for entry in earlier if entry.at > at - _DAY)

    def enter(self, contract: str, at: datetime, wall_seconds: int) -> None:
        """Write a consent down, durably; again changes nothing. Raises OSError."""
        if self.at(contract) is not None:
            return
        entries = [entry for entry in self._record.consents if entry.at > at - _KEPT]
        record = _Record(consents=[*entries, _Entry(contract=contract, at=at, wall_seconds=wall_seconds)])
        write_atomically(self._path, record.model_dump_json(by_alias=True).encode())
        self._record = record
