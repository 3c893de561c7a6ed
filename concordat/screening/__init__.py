"""What is sent and what is refused: difference, norm and clipping; the check of one delta; the screening of a round."""

from concordat.api.conditions import Reason
from concordat.artifacts.tensors import Tensors
from concordat.screening.alerts import Alert
from concordat.screening.delta import check_delta, check_schema, difference, factor_names
from concordat.screening.errors import ScreeningError
from concordat.screening.norms import (
    NORM_TOLERANCE,
    Limits,
    check_norms,
    clip,
    decimal,
    numbers_wire,
    signed,
    total_norm,
)
from concordat.screening.screen import Candidate, Findings, Functional, FunctionalLimits, Screened, screen

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
    "check_delta",
    "check_norms",
    "check_schema",
    "clip",
    "decimal",
    "difference",
    "factor_names",
    "numbers_wire",
    "screen",
    "signed",
    "total_norm",
]
