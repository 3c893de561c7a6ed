"""A user's mistake, told in a sentence; and the exit codes, which are part of the API."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `concordat`."""

    OK = 0
    FAILED = 1
    """What was asked for ran and did not succeed: a failed round, a cluster that did not come up."""
    USAGE = 2
    """The command line itself is wrong, or a file that it names."""
    PREREQUISITE = 3
    """Something the machine must have is missing; the message says how to get it."""
    UNREACHABLE = 4
    """No cluster answers."""
    NOT_FOUND = 5
    """The object asked for does not exist."""


class UserError(Exception):
    """Shown as one line, without a traceback."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code
