"""What all statements have in common, written and read: subject, kind, digests and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from concordat.statements.dsse import STATEMENT_TYPE, Signed, Unverified
from concordat.statements.errors import MalformedStatement

Readable = Signed | Unverified
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def statement(file: str, digest: str, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """Return an in-toto Statement v1 about one file."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file, "digest": digest_set(digest)}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def digest_set(digest: str) -> dict[str, str]:
    """Return a digest as in-toto writes it."""
    return {"sha256": digest.removeprefix("sha256:")}


def rfc3339(time: datetime) -> str:
    """Return a time in UTC, to the second."""
    return time.astimezone(UTC).strftime(_TIME)


def predicate_type(signed: Readable) -> str:
    """Return the kind of a statement."""
    return str(signed.statement["predicateType"])


def predicate(signed: Readable, expected: str) -> dict[str, Any]:
    """Return the predicate of a statement of the expected kind. Raises MalformedStatement."""
    if predicate_type(signed) != expected:
        raise MalformedStatement(f"predicateType is {predicate_type(signed)[:80]!r}, expected {expected!r}")
    found: dict[str, Any] = signed.statement["predicate"]
    return found


def subject(signed: Readable) -> tuple[str, str]:
    """Return file name and digest of what a statement is about. Raises MalformedStatement."""
    subjects = signed.statement["subject"]
    if len(subjects) != 1:
        raise MalformedStatement(f"subject has {len(subjects)} entries, expected 1")
    return get(subjects[0], "name", type_=str), sha256(subjects[0], "subject")


def get(value: Any, *path: str, type_: type) -> Any:
    """Return the member at a path, of that type. Raises MalformedStatement."""
    for step in path:
        if not isinstance(value, dict) or step not in value:
            raise MalformedStatement(f"{'.'.join(path)} is missing")
        value = value[step]
    if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
        raise MalformedStatement(f"{'.'.join(path)} is not a {type_.__name__}")
    return value


def texts(value: Any, *path: str) -> tuple[str, ...]:
    """Return the list of texts at a path. Raises MalformedStatement."""
    found = get(value, *path, type_=list)
    if not all(isinstance(text, str) for text in found):
        raise MalformedStatement(f"{'.'.join(path)} must be a list of strings")
    return tuple(found)


def sha256(value: Any, what: str) -> str:
    """Return `sha256:<hex>` of an object with a digest set. Raises MalformedStatement."""
    digest = get(value, "digest", "sha256", type_=str)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise MalformedStatement(f"{what}: the digest is not 64 lower-case hex digits")
    return f"sha256:{digest}"


def time_at(value: Any, *path: str) -> datetime:
    """Return the time at a path, as `rfc3339` writes it. Raises MalformedStatement."""
    text = get(value, *path, type_=str)
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise MalformedStatement(f"{'.'.join(path)} is no time such as 2026-11-24T12:00:00Z") from None
