"""The nine steps that decide which updates count: one update by itself (`update`), then the round (`screen`)."""

from concordat.api.conditions import Reason
from concordat.screening.alerts import Alert
from concordat.screening.errors import ScreeningError
from concordat.screening.norms import (
    NORM_TOLERANCE,
    Limits,
    check_norms,
    decimal,
    numbers_wire,
    signed,
)
from concordat.screening.screen import (
    Candidate,
    Findings,
    Functional,
    FunctionalCheck,
    FunctionalLimits,
    Screened,
    screen,
)
from concordat.screening.update import CHARGED, norm_limits

__all__ = [
    "CHARGED",
    "NORM_TOLERANCE",
    "Alert",
    "Candidate",
    "Findings",
    "Functional",
    "FunctionalCheck",
    "FunctionalLimits",
    "Limits",
    "Reason",
    "Screened",
    "ScreeningError",
    "check_norms",
    "decimal",
    "norm_limits",
    "numbers_wire",
    "screen",
    "signed",
]
