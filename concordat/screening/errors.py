"""The error of an update that is not aggregated."""

from __future__ import annotations

from concordat.api.conditions import Reason


class ScreeningError(Exception):
    """An update that must not be aggregated. `norm` is its norm where it could be computed."""

    def __init__(self, reason: Reason, message: str, norm: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.norm = norm
