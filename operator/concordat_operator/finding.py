"""A reason and a sentence: the result of a look at the world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One word why, and one sentence for people, with what to do."""

    reason: str
    """A Reason, or the word of another party, which may be newer than this program."""
    message: str
