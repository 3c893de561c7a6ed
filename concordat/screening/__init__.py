"""What is sent and what is refused: difference and form of an update, its norms, and the screening of a round."""

from concordat.api.conditions import Reason
from concordat.screening.alerts import Alert
from concordat.screening.delta import check_schema, difference, factor_names
from concordat.screening.errors import ScreeningError
from concordat.screening.norms import (
    NORM_TOLERANCE,
    Limits,
    check_norms,
    decimal,
    numbers_wire,
    signed,
)
from concordat.screening.screen import Candidate, Findings, Functional, FunctionalLimits, Screened, screen
from concordat.tensors import Tensors

__all__ = [
    "NORM_TOLERANCE",
    "Alert",
    "Candidate",
    "Findings",
    "Functional",
    "FunctionalLimits",
    "Limits",
    "Reason",
    "Screened",
    "ScreeningError",
    "Tensors",
    "check_norms",
    "check_schema",
    "decimal",
    "difference",
    "factor_names",
    "numbers_wire",
    "screen",
    "signed",
]
