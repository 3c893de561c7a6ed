"""Requests to a registry, read: which repository, and what is to be done there (distribution-spec 1.1)."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum


class Act(StrEnum):
    """Things that can be done in a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    LIST = "list"


@dataclass(frozen=True)
class Asked:
    """One request."""

    repository: str
    act: Act


# The path as it came over the wire, without percent signs: a name that has to be decoded is none of ours.
_NAME = r"/v2/(?P<name>[a-z0-9]+(?:[._/-][a-z0-9]+)*)"
_DIGEST = r"sha256:[a-f0-9]{64}"
_KINDS: tuple[tuple[re.Pattern[str], dict[str, Act]], ...] = (
    (
        re.compile(rf"{_NAME}/manifests/(?:{_DIGEST}|[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})"),
        {"GET": Act.PULL, "HEAD": Act.PULL, "PUT": Act.PUSH, "DELETE": Act.DELETE},
    ),
    (re.compile(rf"{_NAME}/blobs/{_DIGEST}"), {"GET": Act.PULL, "HEAD": Act.PULL, "DELETE": Act.DELETE}),
    (re.compile(rf"{_NAME}/blobs/uploads/"), {"POST": Act.PUSH}),
    (
        re.compile(rf"{_NAME}/blobs/uploads/[A-Za-z0-9-]{{1,64}}"),
        {"GET": Act.PUSH, "PATCH": Act.PUSH, "PUT": Act.PUSH, "DELETE": Act.PUSH},
    ),
    (re.compile(rf"{_NAME}/tags/list"), {"GET": Act.LIST}),
)


def asked(method: str, path: str, query: Container[str] = ()) -> Asked | None:
    """Return what a request asks for; None if it is nothing that the gateway passes on.

    A blob is never mounted from another repository: whose it is there would have to be asked as well.
    """
    if "mount" in query or "from" in query:
        return None
    for pattern, acts in _KINDS:
        found = pattern.fullmatch(path)
        if found is not None and method in acts:
            return Asked(found["name"], acts[method])
    return None
