"""How far a Job is, read from its status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """The end of a Job: when it completed, or why it failed."""

    completed: datetime | None
    message: str = ""


def outcome(job: dict[str, Any] | None) -> Outcome | None:
    """How the Job ended; None while it does not exist or has not ended."""
    status = (job or {}).get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("status") != "True":
            continue
        if condition.get("type") == "Failed":
            words = [str(condition[part]) for part in ("reason", "message") if condition.get(part)]
            return Outcome(None, ": ".join(words) or "no reason given")
        if condition.get("type") == "Complete" and status.get("completionTime"):
            return Outcome(datetime.fromisoformat(status["completionTime"]))
    return None
