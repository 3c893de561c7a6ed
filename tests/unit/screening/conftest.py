"""A round from plain vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.screening import Candidate, Screened, screen


def _screen_rows(
    rows: NDArray[Any] | Sequence[Sequence[float]],
    max_faulty: int = 1,
    *,
    charged_before: int = 0,
    arrival: Sequence[int] | None = None,
    **rest: Any,
) -> Screened:
    x = np.array(rows, dtype=np.float64)
    inner = x @ x.T
    squares = np.diag(inner)
    distances2 = np.maximum(squares[:, None] + squares - 2 * inner, 0)
    came = range(len(x)) if arrival is None else arrival
    candidates = [Candidate(f"site-{i:02}", float(v), came[i]) for i, v in enumerate(np.sqrt(squares))]
    return screen(candidates, inner, distances2, max_faulty=max_faulty, charged_before=charged_before, **rest)


@pytest.fixture(scope="session")
def screen_rows() -> Callable[..., Screened]:
    """Screens rows (n, d), of sites named site-00, site-01, …; `arrival` is each one's place, else by name."""
    return _screen_rows
