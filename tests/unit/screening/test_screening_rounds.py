"""Steps 5, 6, 8 and 9: who is rejected, at which threshold, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.screening import Alert, Candidate, Functional, FunctionalCheck, FunctionalLimits, Screened, screen

Screen = Callable[..., Screened]
LIMITS = FunctionalLimits(max_loss_increase=1.0, max_trigger_gain=0.3)
GOOD = Functional(0.0, 0.0, "corner")


def at(*degrees: float) -> NDArray[Any]:
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def reasons(screened: Screened) -> list[Reason]:
    return [f.reason for f in screened.findings]


V, DUP, FREE = Reason.VERIFIED, Reason.NEAR_DUPLICATE, Reason.FREE_RIDING


def test_a_chosen_site_cannot_evict_another_by_copying_it(screen_rows: Screen) -> None:
    """Finding F3: of two alike the first by name stayed, so a copier with an earlier name evicted its victim."""
    screened = screen_rows(at(0, 90, 180, 0), arrival=[3, 1, 2, 0])
    assert reasons(screened) == [DUP, V, V, V]
    assert screened.findings[0].near == "site-03"


@pytest.mark.parametrize("scale", [1e-1, 0.5, 3.0, 1e4])
def test_a_scaled_copy_is_a_copy(screen_rows: Screen, scale: float) -> None:
    rows = at(0, 90, 0)
    rows[2] *= scale
    first, _, copy = screen_rows(rows).findings
    assert (first.reason, copy.reason, copy.near) == (V, DUP, "site-00")
    assert copy.message == "the update copies that of site-00, which came first: cosine 1"
    assert copy.numbers == {"norm": pytest.approx(scale), "nearestCosine": pytest.approx(1)}


def test_a_copy_with_noise_says_how_near_it_is(screen_rows: Screen) -> None:
    found = screen_rows(at(0, 90, 180, 1)).findings[3]
    assert (found.reason, found.near) == (DUP, "site-00")
    assert found.message.startswith("the update copies that of site-00, which came first: cosine 0.9998, ")
    assert found.message.endswith(" times as close as the others are to their nearest")


@pytest.mark.parametrize(
    ("norms", "wanted"),
    [
        ([1, 1, 0.051], [V, V, V]),
        ([1, 1, 0.049], [V, V, FREE]),
        ([0.001, 1], [V, V]),
        ([0, 1], [FREE, V]),
        ([0], [FREE]),
        ([0, 0, 0], [FREE, FREE, FREE]),
        # Zeros are gone before the median is taken: 0.04 is 0.04 of it, not more than all.
        ([0, 0, 0, 1, 1, 0.04], [FREE, FREE, FREE, V, V, FREE]),
        ([1e-300, 1], [FREE, V]),
    ],
)
def test_an_update_that_is_next_to_nothing_is_free_riding(
    screen_rows: Screen, norms: list[float], wanted: list[Reason]
) -> None:
    assert reasons(screen_rows(np.diag(norms))) == wanted


def test_the_median_of_a_survivor_is_that_of_survivors(screen_rows: Screen) -> None:
    found = screen_rows(np.diag([1.0, 2.0, 3.0, 0.01])).findings
    assert [f.numbers["relativeNorm"] for f in found] == pytest.approx([0.5, 1, 1.5, 0.01 / 1.5])
    assert found[3].message == "the norm 0.01 is 0.0067 times the round's median, at least 0.05"


@pytest.mark.parametrize(("cosine", "reason"), [(0.979, V), (0.981, FREE), (1.0, FREE), (-1.0, V)])
def test_the_last_aggregate_sent_back_is_free_riding(screen_rows: Screen, cosine: float, reason: Reason) -> None:
    found = screen_rows(np.eye(3), previous=np.array([0.1, cosine, 0.1])).findings
    assert [f.reason for f in found] == [V, reason, V]
    assert [f.numbers["previousCosine"] for f in found] == [0.1, cosine, 0.1]
    assert ("repeats the last aggregate" in found[1].message) is (reason is FREE)


@pytest.mark.parametrize(
    ("result", "odd", "wanted"),
    [
        (GOOD, False, V),
        (Functional(1.0, 0.3, "corner"), False, V),
        (Functional(1.01, 0.0, "corner"), False, V),
        (Functional(0.0, 0.31, "corner"), False, V),
        (Functional(math.nan, 0.0, "corner"), False, V),
        (Functional(0.0, math.nan, "corner"), False, V),
        (GOOD, True, V),
        (Functional(1.0, 0.3, "corner"), True, V),
        (Functional(1.01, 0.0, "corner"), True, Reason.POISONING_SUSPECTED),
        (Functional(math.nan, 0.0, "corner"), True, Reason.POISONING_SUSPECTED),
        (Functional(0.0, 0.31, "corner"), True, Reason.POISONING_SUSPECTED),
    ],
)
def test_the_functional_check(screen_rows: Screen, result: Functional, odd: bool, wanted: Reason) -> None:
    rows = np.eye(9)
    rows[4] *= 4 if odd else 1
    functional = {f"site-{i:02}": GOOD for i in range(9)} | {"site-04": result}
    screened = screen_rows(rows, functional=FunctionalCheck(functional, LIMITS))
    assert reasons(screened) == [V] * 4 + [wanted] + [V] * 4
    assert (screened.rejected, screened.remaining_faults) == ((0, 1) if wanted is V else (1, 0))
    assert screened.suspected == (("site-04",) if wanted is Reason.POISONING_SUSPECTED else ())
    found = screened.findings[4]
    fine = result.trigger_gain <= 0.3 and result.loss_change <= 1
    assert bool(set(found.alerts) - {Alert.FUNCTIONAL}) is odd
    assert (Alert.FUNCTIONAL in found.alerts) is not fine
    assert ("maxTriggerGainPpm" in found.message) is not (result.trigger_gain <= 0.3)
    assert ("maxLossIncrease" in found.message) is not (result.loss_change <= 1)
    assert str(found.numbers["lossChange"]) == str(result.loss_change)


def test_alerts_of_one_family_do_not_quarantine(screen_rows: Screen) -> None:
    # A small update is near to all others: only its size stands out.
    functional = {f"site-{i:02}": Functional(2.0, 0.0, "corner") for i in range(9)}
    screened = screen_rows(np.diag([0.06, *[1.0] * 8]), functional=FunctionalCheck(functional, LIMITS))
    assert screened.findings[0].alerts == (Alert.LOG_NORM, Alert.FUNCTIONAL)
    assert reasons(screened) == [V] * 9


def test_a_rejected_update_needs_no_functional_result(screen_rows: Screen) -> None:
    screened = screen_rows(at(0, 0, 90), functional=FunctionalCheck({"site-00": GOOD, "site-02": GOOD}, LIMITS))
    assert reasons(screened) == [V, DUP, V]
    assert "lossChange" not in screened.findings[1].numbers


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ({"functional": FunctionalCheck({"site-00": GOOD}, LIMITS)}, r"missing: \['site-01'\]"),
        ({"previous": np.zeros(3)}, r"previous \(2,\)"),
    ],
)
def test_what_does_not_fit_is_an_error_of_the_caller(screen_rows: Screen, rest: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        screen_rows(np.eye(2), **rest)


@pytest.mark.parametrize(
    ("rows", "before", "max_faulty", "rejected", "remaining", "held"),
    [
        (at(), 0, 0, 0, 0, False),
        (at(), 2, 1, 2, 0, True),
        (at(0), 0, 2, 0, 2, False),
        (at(0, 0, 90), 0, 1, 1, 0, False),
        (at(0, 0, 90), 1, 1, 2, 0, True),
        (at(0, 0, 90), 1, 4, 2, 2, False),
        (at(0, 0, 90), 0, 0, 1, 0, True),
        (np.zeros((2, 2)), 0, 1, 2, 0, True),
    ],
)
def test_rejections_use_up_the_fault_budget(
    screen_rows: Screen, rows: NDArray[Any], before: int, max_faulty: int, rejected: int, remaining: int, held: bool
) -> None:
    screened = screen_rows(rows, max_faulty, charged_before=before)
    assert (screened.rejected, screened.remaining_faults, screened.held) == (rejected, remaining, held)


def test_alerts_are_computed_for_what_is_left_of_the_budget(screen_rows: Screen) -> None:
    # Three updates have a robust centre with one faulty among them, with two they have none.
    for before, computed in ((0, False), (1, True)):
        found = screen_rows(np.eye(3), 2, charged_before=before).findings[0]
        assert ("centreCosine" in found.numbers) is computed


def test_a_norm_that_underflows_when_squared_is_nothing() -> None:
    zero = np.zeros((3, 3))
    candidates = [Candidate(f"site-{i}", 1e-200, i) for i in range(3)]
    assert reasons(screen(candidates, zero, zero, max_faulty=1, charged_before=0)) == [FREE] * 3


def test_a_round_of_nobody_one_and_two(screen_rows: Screen) -> None:
    assert screen_rows(np.empty((0, 3)), previous=np.empty(0), functional=FunctionalCheck({}, LIMITS)).findings == ()
    [one] = screen_rows([[1.0, 2.0]]).findings
    assert (one.reason, one.alerts, set(one.numbers), one.near) == (V, (), {"norm"}, None)
    for found in screen_rows([[1.0, 0.0], [-100.0, 1.0]]).findings:
        assert (found.reason, found.alerts, set(found.numbers)) == (V, (), {"norm", "nearestCosine"})


@given(st.integers(0, 2**32 - 1), st.permutations(range(10)))
def test_the_order_of_the_candidates_changes_nothing(screen_rows: Screen, seed: int, order: Sequence[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.lognormal(0, 1, (10, 1)) * (rng.normal(size=(10, 4)) + rng.uniform(0, 3))
    previous = rng.uniform(-1, 1, 10)
    inner, names = rows @ rows.T, [f"site-{i}" for i in range(10)]
    norms = np.sqrt(np.diag(inner))
    distances2 = np.maximum(norms[:, None] ** 2 + norms**2 - 2 * inner, 0)
    candidates = [Candidate(s, float(v), i) for i, (s, v) in enumerate(zip(names, norms, strict=True))]
    functional = {s: Functional(float(rng.normal()), float(rng.uniform(0, 0.6)), "corner") for s in names}
    results = [
        screen(
            [candidates[i] for i in some],
            inner[np.ix_(some, some)],
            distances2[np.ix_(some, some)],
            max_faulty=2,
            charged_before=0,
            previous=previous[list(some)],
            functional=FunctionalCheck(functional, LIMITS),
        )
        for some in (range(10), order)
    ]
    assert results[0] == results[1]


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.sampled_from([1e-6, 1e-3, 0.5, 7.0, 1e5]))
def test_nothing_but_the_norm_depends_on_the_scale(screen_rows: Screen, seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.lognormal(0, 1, (n, 1)) * (rng.normal(size=(n, 30)) + rng.uniform(0, 3))
    plain, scaled = screen_rows(rows).findings, screen_rows(rows * scale).findings
    for one, other in zip(plain, scaled, strict=True):
        assert (one.reason, one.alerts, one.near) == (other.reason, other.alerts, other.near)
        numbers = {**one.numbers, "norm": one.numbers["norm"] * scale}
        assert other.numbers == pytest.approx(numbers, rel=1e-6, abs=1e-6)
