"""What keeps the agent from a step at present: the registry is away or refuses, or a volume is full.

Such a step is no failure: its condition says so, and it is tried again until its deadline.
"""

from __future__ import annotations

import errno

from concordat.api import RETRIED_REASONS, ConditionSet, ConditionType, Reason
from concordat.artifacts import ArtifactError, RegistryUnavailable
from concordat_agent.policy import Answer

RETRY_SECONDS = 15.0
"""Between two tries; the registry's client has tried several times within each."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def trouble(error: ArtifactError | OSError) -> Answer | None:
    """Return what is in the way, with the remedy; None for an error of another kind, which is a bug."""
    again = f"it is tried again every {RETRY_SECONDS:.0f} s."
    if isinstance(error, RegistryUnavailable):
        return Answer.no(
            Reason.REGISTRY_UNAVAILABLE,
            f"{error}; {again} See whether it runs, and whether NetworkPolicies and proxies let this site reach it.",
        )
    if isinstance(error, ArtifactError):
        return Answer.no(
            Reason.REGISTRY_REFUSED,
            f"{error}; {again} See what the registry and the proxies before it allow this site.",
        )
    if error.errno in _FULL:
        where = f" at {error.filename}" if error.filename else ""
        return Answer.no(
            Reason.DISK_FULL,
            f"{error.strerror}{where}; {again} Enlarge the site's workspace claim and the agent's state volume, or "
            "remove what else lies there.",
        )
    return None


def show(conditions: ConditionSet, type_: ConditionType, answer: Answer) -> None:
    """Set the condition. The same trouble again is no news, even in other words: it costs no write per try."""
    shown = conditions.get(type_)
    if answer.reason not in RETRIED_REASONS or shown is None or shown.reason != answer.reason:
        conditions.set(type_, answer.passed, answer.reason, answer.message)
