"""Which release the site uses, and which it used before: the agent's own record, beside its key.

The status shows it, but others may write the status; a replayed old release is refused by this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from concordat.api.site import Champion
from concordat.api.types import ArtifactRef, Model
from concordat_agent.files import write_atomically


class _Line(Model):
    model_config = ConfigDict(extra="forbid")

    current: Champion
    previous: Champion | None = None


class _Record(Model):
    model_config = ConfigDict(extra="forbid")

    federations: Annotated[dict[str, _Line], Field(default_factory=dict)]


class ChampionError(Exception):
    """The record cannot be read; without it a replayed release could not be told from a new one."""


class Champions:
    """The champions of a site, one in each federation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._record = _Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            self._record = _Record(federations={})
        except ValidationError as error:
            raise ChampionError(
                f"{path} is no record of champions ({error.error_count()} errors): restore it from a backup of the "
                "state volume; without it the agent cannot refuse replayed releases"
            ) from None

    def current(self, federation: str) -> Champion | None:
        """Return the release in use; None: the base package without an adopted release."""
        line = self._record.federations.get(federation)
        return line.current if line else None

    def in_use(self) -> dict[str, Champion]:
        """Return the release in use, by federation."""
        return {name: line.current for name, line in self._record.federations.items()}

    def incumbent(self, federation: str, release: str, adapter: ArtifactRef) -> Champion | None:
        """Return the champion that the release is compared with: the one before it if it is the champion itself.

        So a decision repeated after a crash has the outcome it had. Another adapter under the champion's name is
        another release.
        """
        line = self._record.federations.get(federation)
        if line is None:
            return None
        adopted = (line.current.release, line.current.artifact) == (release, adapter)
        return line.previous if adopted else line.current

    def adopt(self, federation: str, champion: Champion) -> bool:
        """Make it the champion, durably; again changes nothing. False, and nothing done, if a newer one is in use."""
        current = self.current(federation)
        if current is not None and (current.release, current.artifact) == (champion.release, champion.artifact):
            return True
        if current is not None and current.sequence >= champion.sequence:
            return False
        lines = {**self._record.federations, federation: _Line(current=champion, previous=current)}
        record = _Record(federations=lines)
        write_atomically(self._path, record.model_dump_json(by_alias=True, exclude_none=True).encode())
        self._record = record
        return True

    def all(self) -> list[Champion]:
        """Return every champion and the one before it."""
        lines = self._record.federations.values()
        return [champion for line in lines for champion in (line.current, line.previous) if champion is not None]
