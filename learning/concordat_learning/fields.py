"""Typed reading of JSON that others made: every error names file, field, value and what was expected."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concordat_learning.errors import InputError

_LIMIT = 16 << 20


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; the agent, or in the hub the aggregator, writes it"
        ) from None
    if len(data) > limit:
        raise InputError(f"{path} is larger than {limit} bytes")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most 16 MiB. Raises InputError."""
    data = read_file(path, _LIMIT)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object")
    return value


class Fields:
    """The members of one JSON object; `where` names it in messages."""

    def __init__(self, members: dict[str, Any], where: str) -> None:
        self._members = members
        self.where = where

    def has(self, name: str) -> bool:
        """Return whether the member is there and not null."""
        return self._members.get(name) is not None

    def members(self) -> Iterator[tuple[str, Any]]:
        """Names and values, by name."""
        yield from sorted(self._members.items())

    def value(self, name: str) -> Any:
        """Return the value as it is."""
        if not self.has(name):
            raise InputError(f"{self.where}: {name} is missing")
        return self._members[name]

    def object(self, name: str) -> Fields:
        """Return a member that is an object."""
        value = self.value(name)
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {name} is not an object")
        return Fields(value, f"{self.where}: {name}")

    def text(self, name: str) -> str:
        """Return a member that is text, not empty."""
        value = self.value(name)
        if not isinstance(value, str) or not value:
            raise InputError(f"{self.where}: {name} is {value!r}; it must be text")
        return value

    def constant(self, name: str, expected: str) -> None:
        """Check a member with the one value this image knows."""
        value = self.value(name)
        if value != expected:
            raise InputError(f"{self.where}: {name} is {value!r}; this image knows {expected!r}")

    def integer(self, name: str, low: int, high: int) -> int:
        """Return a whole number, or its decimal string, within low..high."""
        value = self.real(name, low, high)
        if value != int(value):
            raise InputError(f"{self.where}: {name} is {value!r}; it must be a whole number")
        return int(value)

    def real(self, name: str, low: float, high: float) -> float:
        """Return a number, or its decimal string, within low..high."""
        value = self.value(name)
        try:
            number = math.nan if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not low <= number <= high:
            raise InputError(f"{self.where}: {name} is {value!r}; it must be a number in {low:g}..{high:g}")
        return number
