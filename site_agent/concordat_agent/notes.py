"""The agent's notes on living objects, on its own volume: no Job, and nobody of the hub, can write there."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from concordat.api import Resource
from concordat.api.types import Model
from concordat_agent.files import write_atomically

N = TypeVar("N", bound=Model)


class Notes:
    """One file per object and kind of note. An object made anew under an old name has none."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def keep(self, about: Resource, note: Model) -> None:
        """Write a note down, durably. Raises OSError."""
        self._root.mkdir(exist_ok=True)
        write_atomically(self._path(about, type(note)), note.model_dump_json(by_alias=True, exclude_none=True).encode())

    def of(self, about: Resource, kind: type[N]) -> N | None:
        """Return what was noted about this very object, or None."""
        try:
            return kind.model_validate_json(self._path(about, kind).read_bytes())
        except FileNotFoundError:
            return None

    def tidy(self, living: Collection[str]) -> None:
        """Remove the notes on objects whose UIDs are not among these."""
        for entry in list(os.scandir(self._root)) if self._root.is_dir() else []:
            if entry.name.partition(".")[0] not in living:
                os.unlink(entry.path)

    def _path(self, about: Resource, kind: type[Model]) -> Path:
        return self._root / f"{about.metadata.uid}.{kind.__name__.lower()}.json"
