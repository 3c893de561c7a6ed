"""What can be wrong with a lineage."""

from concordat.api.conditions import Reason


class LineageError(Exception):
    """The lineage does not hold, or the keys to verify it by cannot be read. The message says why, in one sentence."""


class SiteRefused(LineageError):
    """The statements of one site do not hold; `reason` is the one its verdict carries."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
