"""What the steps of the verification share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from concordat.api.conditions import Reason
from concordat.lineage.bundle import Line, StatementKind
from concordat.lineage.errors import LineageError, SiteRefused
from concordat.statements import PublicKey, Signed, StatementError, open_bundle


def demand(holds: bool, otherwise: str) -> None:
    """Raise LineageError with that sentence unless it holds."""
    if not holds:
        raise LineageError(otherwise)


def only(found: Mapping[StatementKind, list[Line]], kind: StatementKind) -> Line:
    """Return the only statement of a kind. Raises LineageError if there is none, or several."""
    demand(len(found[kind]) == 1, f"the bundle has {len(found[kind])} statements of kind {kind}, expected 1")
    return found[kind][0]


def opened(line: Line, keys: Collection[PublicKey], what: str) -> Signed:
    """Return the statement, verified. Raises LineageError."""
    with reading(what):
        return open_bundle(line.data, keys)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Tell which statement could not be read or verified."""
    try:
        yield
    except StatementError as error:
        raise LineageError(f"{what}: {error}") from None


def demand_of_site(holds: bool, reason: Reason, otherwise: str) -> None:
    """Raise SiteRefused with that reason and sentence unless it holds."""
    if not holds:
        raise SiteRefused(reason, otherwise)


@contextmanager
def reading_of_site(what: str, reason: Reason) -> Iterator[None]:
    """Refuse a site, with that reason, whose statement could not be read or verified."""
    try:
        yield
    except StatementError as error:
        raise SiteRefused(reason, f"{what}: {error}") from None
