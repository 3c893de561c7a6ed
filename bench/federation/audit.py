"""Who wrote what, from the API server's audit log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

OPERATOR, AGENTS, NODES, OTHERS = "operator", "agents", "nodes", "Kubernetes"


@dataclass(frozen=True)
class Write:
    """One kind of write."""

    who: str
    verb: str
    resource: str


def writes(log: Path, offset: int, users: dict[str, str]) -> tuple[Counter[Write], int]:
    """Return the successful writes logged since `offset`, and the offset to go on from. `users`: name to who it is."""
    with log.open("rb") as lines:
        lines.seek(offset)
        found = count(lines, users)
        return found, lines.tell()


def count(lines: Iterable[bytes | str], users: dict[str, str]) -> Counter[Write]:
    """Count the successful writes of an audit log."""
    found: Counter[Write] = Counter()
    for line in lines:
        entry = json.loads(line)
        about = entry.get("objectRef")
        if about is None or not 200 <= entry.get("responseStatus", {}).get("code", 0) < 300:
            continue
        part = f"/{about['subresource']}" if "subresource" in about else ""
        found[Write(users.get(entry["user"]["username"], OTHERS), entry["verb"], about["resource"] + part)] += 1
    return found


def first_useful(log: Path, offset: int, users: dict[str, str], after: datetime) -> datetime | None:
    """Return when the API server got the operator's first write after a moment, Leases and Events not counted."""
    with log.open("rb") as lines:
        lines.seek(offset)
        found = (json.loads(line) for line in lines if line.endswith(b"\n"))
        return next(
            (
                at
                for entry in found
                if users.get(entry["user"]["username"]) == OPERATOR
                and entry["objectRef"]["resource"] not in ("leases", "events")
                and (at := datetime.fromisoformat(entry["requestReceivedTimestamp"])) > after
            ),
            None,
        )


def per_site(found: Counter[Write], sites: int, who: Iterable[str] = (OPERATOR, AGENTS)) -> float:
    """Return the writes per site, without Leases: a heartbeat costs by the minute, not by the round."""
    parties = set(who)
    return sum(n for write, n in found.items() if write.who in parties and write.resource != "leases") / sites
