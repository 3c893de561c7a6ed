"""Copies and replays: far closer than the round's other updates are, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from concordat.screening.likeness import COPY_SHARE, MAX_COPY_GAP, MAX_REPLAY_GAP, ROUNDING, copies, replays

Floats = NDArray[np.float64]


def gaps_of(rows: Floats) -> Floats:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(1 - unit @ unit.T)


def sites(rng: np.random.Generator, n: int, examples: int, dimensions: int = 600) -> Floats:
    """Updates (n, d) of honest sites with equal data: a common signal and noise that shrinks with the examples."""
    signal = rng.normal(size=dimensions)
    return np.asarray(signal + rng.normal(size=(n, dimensions)) * np.sqrt(80 / examples))


@pytest.mark.parametrize("examples", [80, 1_280, 20_480, 102_400, 10_000_000])
@pytest.mark.parametrize("n", [3, 5, 16, 100])
def test_honest_sites_with_much_data_are_no_copies(n: int, examples: int) -> None:
    """Finding F2: at 5,120 examples each, 15 of 16 honest sites were rejected in the first round."""
    for seed in range(10):
        rng = np.random.default_rng([seed, n, examples])
        rows = sites(rng, n, examples)
        previous = rows.mean(axis=0) + rng.normal(size=rows.shape[1]) * np.sqrt(80 / examples / n)
        assert copies(gaps_of(rows)) == {}
        assert replays(gaps_of(np.vstack([previous, rows]))[0, 1:]) == {}


@pytest.mark.parametrize("examples", [80, 1_280, 20_480])
@pytest.mark.parametrize("n", [4, 16])
def test_a_copy_with_a_little_noise_is_found_however_alike_the_others_are(n: int, examples: int) -> None:
    for seed in range(10):
        rng = np.random.default_rng([seed, n, examples])
        rows = sites(rng, n, examples)
        own = rows[0] - rows[1:].mean(axis=0)
        copy = rows[0] + 0.1 * np.linalg.norm(own) / np.sqrt(own.size) * rng.normal(size=own.size)
        found = copies(gaps_of(np.vstack([rows, copy])))
        assert {row: likeness.of for row, likeness in found.items()} == {n: 0}


@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 9), st.just(3)), elements=st.floats(-9, 9)))
def test_what_is_kept_holds_no_two_alike_and_every_copy_has_an_earlier_original(rows: Floats) -> None:
    rows = rows[np.linalg.norm(rows, axis=1) > 1e-3]
    gaps = gaps_of(rows) if len(rows) else np.zeros((0, 0))
    found = copies(gaps)
    for row, likeness in found.items():
        assert likeness.of < row
        assert likeness.of not in found
        assert likeness.gap < ROUNDING or likeness.gap < MAX_COPY_GAP
        assert likeness.gap < ROUNDING or (likeness.usual is not None and likeness.gap < COPY_SHARE * likeness.usual)
    kept = [row for row in range(len(rows)) if row not in found]
    assert all(gaps[a, b] >= ROUNDING for a in kept for b in kept if a < b)


@pytest.mark.parametrize(
    ("gaps", "wanted"),
    [
        ([], []),
        # By itself, only the aggregate to the last bit is a replay: there is nothing to compare with.
        ([0.001], []),
        ([0.0], [0]),
        ([0.001, 0.5, 0.5], [0]),
        ([MAX_REPLAY_GAP, 0.5, 0.5], []),
        # All are near to it, as with much data: so none is out of the ordinary.
        ([0.001, 0.002, 0.003], []),
        ([0.0001, 0.002, 0.003], [0]),
    ],
)
def test_a_replay_is_far_closer_than_the_others(gaps: list[float], wanted: list[int]) -> None:
    """Finding F2: the threshold was absolute."""
    assert list(replays(np.array(gaps))) == wanted


@pytest.mark.parametrize(
    ("apart", "wanted"),
    [
        # Two alone are never too alike, but for one update in two scales.
        ([[0, 0.001], [0.001, 0]], {}),
        ([[0, 1e-9], [1e-9, 0]], {1: 0}),
        # A chain: the third is like the second only, which is rejected already.
        ([[0, 0.005, 0.02, 1], [0.005, 0, 0.005, 1], [0.02, 0.005, 0, 1], [1, 1, 1, 0]], {1: 0}),
        # Just above the share of the usual gap, and just below.
        ([[0, 0.006, 0.05], [0.006, 0, 0.05], [0.05, 0.05, 0]], {}),
        ([[0, 0.004, 0.05], [0.004, 0, 0.05], [0.05, 0.05, 0]], {1: 0}),
    ],
)
def test_copies_by_their_gaps(apart: list[list[float]], wanted: dict[int, int]) -> None:
    assert {row: likeness.of for row, likeness in copies(np.array(apart)).items()} == wanted
