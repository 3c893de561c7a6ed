"""The one error of this package that a person can do something about."""

from __future__ import annotations

from pathlib import Path

TAIL_LINES = 20


class DevclusterError(Exception):
    """Something outside the program is not as needed; the message says what, and what to do about it."""


def log_tail(path: Path) -> str:
    """Return the last lines of a log file, indented, for an error message; empty when there is no such file."""
    if not path.is_file():
        return ""
    lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
    return "".join(f"\n    {line}" for line in lines)
