"""The Wilson interval: published values, and what holds for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat_learning.intervals import MILLION, ppm, wilson

_CORRECT = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
_LEVELS = st.integers(1, MILLION - 1)


@pytest.mark.parametrize(
    ("correct", "examples", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(correct: int, examples: int, low: float, high: float) -> None:
    found = wilson(correct, examples, 950_000)
    assert round(found.low_ppm / MILLION, 4) == pytest.approx(low, abs=1.01e-4)
    assert round(found.high_ppm / MILLION, 4) == pytest.approx(high, abs=1.01e-4)


@given(_CORRECT, _LEVELS)
def test_the_interval_holds_the_proportion_and_is_symmetric(count: tuple[int, int], level: int) -> None:
    correct, examples = count
    found, mirrored = wilson(correct, examples, level), wilson(examples - correct, examples, level)
    assert 0 <= found.low_ppm <= found.ppm <= found.high_ppm <= MILLION
    assert found.ppm == ppm(correct, examples)
    assert abs(found.low_ppm - (MILLION - mirrored.high_ppm)) <= 1


@given(_CORRECT, st.tuples(_LEVELS, _LEVELS))
def test_more_confidence_is_a_wider_interval(count: tuple[int, int], levels: tuple[int, int]) -> None:
    narrow, wide = (wilson(*count, level) for level in sorted(levels))
    assert wide.low_ppm <= narrow.low_ppm
    assert narrow.high_ppm <= wide.high_ppm


@pytest.mark.parametrize("arguments", [(-1, 5, 950_000), (6, 5, 950_000), (0, 0, 950_000), (1, 2, 0), (1, 2, MILLION)])
def test_nonsense_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="it must be between"):
        wilson(*arguments)
