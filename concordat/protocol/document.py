"""A JSON file of the protocol."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import ConfigDict, ValidationError

from concordat.api.types import Model
from concordat.protocol.canonical import canonical

_SHOWN = 60


class DocumentError(ValueError):
    """The bytes are not the document that they should be. The message names the file and the first wrong member."""


class Document(Model):
    """A JSON object in a file of its own, whoever wrote it. Its values are checked, and cannot be changed."""

    model_config = ConfigDict(frozen=True)

    FILE: ClassVar[str]
    """Name of the file."""
    LIMIT: ClassVar[int]
    """Most bytes that a reader accepts."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the file's content. Raises DocumentError."""
        if len(data) > cls.LIMIT:
            raise DocumentError(f"{cls.FILE} has {len(data)} bytes, at most {cls.LIMIT} are read")
        try:
            document = cls.model_validate_json(data)
        except ValidationError as error:
            raise DocumentError(f"{cls.FILE}: {first_error(error)}") from None
        for name in ("schema_", "kind"):
            # A writer need not spell them out, but a document without them could be any.
            if name in cls.model_fields and name not in document.model_fields_set:
                raise DocumentError(f"{cls.FILE}: {name.rstrip('_')} is missing")
        return document

    def to_bytes(self) -> bytes:
        """Return the file's content; equal documents give equal bytes."""
        return canonical(self.wire())


def first_error(error: ValidationError) -> str:
    """Say where the first error is, what is wrong, and, if it is short enough, with which value."""
    first = error.errors(include_url=False)[0]
    where, value = ".".join(str(part) for part in first["loc"]), first["input"]
    given = f", got {value!r:.{_SHOWN}}" if isinstance(value, str | int | float) else ""
    return f"{where}: {first['msg']}{given}" if where else f"{first['msg']}"
