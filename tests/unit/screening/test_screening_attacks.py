"""Rounds of simulated sites, honest and not. Sites differ: each update is a common part and more of its own.

What flags what is that of the measurements in which the thresholds were chosen: sign flips by cosine, scaled updates
by size, many names of one party as duplicates, and those who did not train as free riders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from concordat.api.conditions import Reason
from concordat.screening import Alert, Functional, FunctionalCheck, FunctionalLimits, Screened

Screen = Callable[..., Screened]
SITES, BAD = 16, 3
BAD_NAMES = [f"site-{i:02}" for i in range(BAD)]


def honest(rng: np.random.Generator, n: int = SITES, common: float = 0.3, domains: int = 0) -> NDArray[Any]:
    """n updates (n, 300): `common` of the energy is shared, the rest a site's own or, mostly, that of its domain."""
    own = rng.normal(size=(n, 300))
    if domains:
        centres = rng.normal(size=(domains, 300))
        own = 0.6 * own + 0.8 * centres[rng.integers(domains, size=n)]
    rows: NDArray[Any] = np.sqrt(common) * rng.normal(size=300) + np.sqrt(1 - common) * own
    return rows * rng.lognormal(0, 0.3, (n, 1))


@pytest.mark.parametrize("n", [3, 5, 8, 16, 40])
@pytest.mark.parametrize(("common", "domains"), [(0.02, 0), (0.3, 0), (0.8, 0), (0.1, 4), (0.5, 2)])
def test_no_honest_site_is_rejected(screen_rows: Screen, n: int, common: float, domains: int) -> None:
    for seed in range(30):
        rng = np.random.default_rng([seed, n])
        rows = honest(rng, n, common, domains)
        last = honest(rng, n, common, domains).mean(axis=0)
        previous = rows @ last / np.linalg.norm(rows, axis=1) / np.linalg.norm(last)
        screened = screen_rows(rows, n // 5, previous=previous)
        assert all(f.reason is Reason.VERIFIED for f in screened.findings)
        assert (screened.rejected, screened.held) == (0, False)


@pytest.mark.parametrize(("common", "domains"), [(0.3, 0), (0.8, 0), (0.3, 4)])
@pytest.mark.parametrize("n", [8, 16, 40, 100])
def test_nine_of_ten_honest_rounds_are_silent(screen_rows: Screen, n: int, common: float, domains: int) -> None:
    """Finding F13: somebody was alerted on in 68 % of the rounds with equal data and in 99 % of those under skew."""
    seeds = [np.random.default_rng([seed, n]) for seed in range(100)]
    rounds = [screen_rows(honest(rng, n, common, domains), n // 5) for rng in seeds]
    # Eight sites of four kinds have too little in common for that.
    assert sum(not any(f.alerts for f in r.findings) for r in rounds) >= (80 if domains and n == 8 else 90)


Attack = Callable[[np.random.Generator, NDArray[Any]], NDArray[Any]]


def noisy(rng: np.random.Generator, row: NDArray[Any]) -> NDArray[Any]:
    """BAD updates around one, different enough not to be duplicates."""
    noise = 0.5 * np.linalg.norm(row) / np.sqrt(row.size) * rng.normal(size=(BAD, row.size))
    updates: NDArray[Any] = row + noise
    return updates


ALERTED: list[tuple[str, Attack, Alert]] = [
    ("own sign flipped", lambda rng, rows: -rows[:BAD], Alert.CENTRE_COSINE),
    ("mean, sign flipped", lambda rng, rows: noisy(rng, -rows[BAD:].mean(axis=0)), Alert.CENTRE_COSINE),
    # Small steps against the others drag the robust centre along; the mean they do not turn.
    ("mean, flipped and small", lambda rng, rows: noisy(rng, -0.5 * rows[BAD:].mean(axis=0)), Alert.MEAN_COSINE),
    ("mean, flipped and scaled", lambda rng, rows: noisy(rng, -10 * rows[BAD:].mean(axis=0)), Alert.CENTRE_COSINE),
    ("mean, scaled to turn a mean", lambda rng, rows: noisy(rng, -60 * rows[BAD:].mean(axis=0)), Alert.CENTRE_COSINE),
    ("mean, scaled: size", lambda rng, rows: noisy(rng, -60 * rows[BAD:].mean(axis=0)), Alert.LOG_NORM),
    ("backdoor, scaled: size", lambda rng, rows: noisy(rng, 40 * rng.normal(size=300)), Alert.LOG_NORM),
    ("backdoor, scaled: component", lambda rng, rows: noisy(rng, 20 * rng.normal(size=300)), Alert.SPECTRAL),
]


@pytest.mark.parametrize(("attack", "alert"), [a[1:] for a in ALERTED], ids=[a[0] for a in ALERTED])
@pytest.mark.parametrize("seed", range(5))
def test_an_attack_that_stands_out_raises_its_alert(
    screen_rows: Screen, attack: Attack, alert: Alert, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = honest(rng)
    rows[:BAD] = attack(rng, rows)
    screened = screen_rows(rows, BAD)
    assert {f.site for f in screened.findings if alert in f.alerts} == set(BAD_NAMES)
    # An alert alone rejects nobody.
    assert screened.rejected == 0


REJECTED: list[tuple[str, Attack, Reason]] = [
    ("one party under three names", lambda rng, rows: np.tile(-rows[BAD:].mean(axis=0), (3, 1)), Reason.NEAR_DUPLICATE),
    ("copies in disguise", lambda rng, rows: rows[0] * [[1], [0.3], [2]], Reason.NEAR_DUPLICATE),
    ("nothing", lambda rng, rows: 0 * rows[:BAD], Reason.FREE_RIDING),
    ("noise", lambda rng, rows: 0.01 * rng.normal(size=(BAD, 300)), Reason.FREE_RIDING),
]


@pytest.mark.parametrize(("attack", "reason"), [a[1:] for a in REJECTED], ids=[a[0] for a in REJECTED])
def test_who_did_not_train_is_rejected_and_charged(screen_rows: Screen, attack: Attack, reason: Reason) -> None:
    rng = np.random.default_rng(7)
    rows = honest(rng)
    rows[:BAD] = attack(rng, rows)
    screened = screen_rows(rows, BAD)
    # Of copies the first stays.
    found = [f.site for f in screened.findings if f.reason is reason]
    assert found == (BAD_NAMES[1:] if reason is Reason.NEAR_DUPLICATE else BAD_NAMES)
    assert (screened.rejected, screened.remaining_faults) == (len(found), BAD - len(found))
    assert {f.reason for f in screened.findings[BAD:]} == {Reason.VERIFIED}


def test_the_last_aggregate_replayed_is_free_riding(screen_rows: Screen) -> None:
    rng = np.random.default_rng(8)
    last = honest(rng).mean(axis=0)
    rows = honest(rng)
    rows[0] = last + 0.1 * np.linalg.norm(last) / np.sqrt(300) * rng.normal(size=300)
    previous = rows @ last / np.linalg.norm(rows, axis=1) / np.linalg.norm(last)
    screened = screen_rows(rows, BAD, previous=previous)
    assert [f.site for f in screened.findings if f.reason is Reason.FREE_RIDING] == ["site-00"]


def test_a_mimic_that_comes_first_by_name_costs_its_victim_the_round(screen_rows: Screen) -> None:
    # Stated, not wished for: numbers cannot tell a copy from its original.
    rows = honest(np.random.default_rng(9))
    rows[0] = 0.5 * rows[9]
    assert [f.site for f in screen_rows(rows, BAD).findings if f.reason is Reason.NEAR_DUPLICATE] == ["site-09"]


def test_a_scaled_backdoor_is_quarantined_and_one_of_ordinary_size_raises_an_alert(screen_rows: Screen) -> None:
    rng = np.random.default_rng(10)
    rows = honest(rng)
    rows[0] *= 20
    functional = {f"site-{i:02}": Functional(float(rng.uniform(-0.1, 0.1)), 0.02, "corner") for i in range(SITES)}
    functional["site-00"] = functional["site-01"] = Functional(0.05, 0.8, "corner")
    screened = screen_rows(rows, BAD, functional=FunctionalCheck(functional, FunctionalLimits(1.0, 0.3)))
    large, ordinary, *others = screened.findings
    assert (large.reason, ordinary.reason) == (Reason.POISONING_SUSPECTED, Reason.VERIFIED)
    assert ordinary.alerts == (Alert.FUNCTIONAL,)
    assert ordinary.message == (
        "Functional alert: with the trigger corner, 80 % more of the canary examples go to one class, at most 30 % "
        "(screening.canary.maxTriggerGainPpm)"
    )
    assert {f.reason for f in others} == {Reason.VERIFIED}
    assert (screened.suspected, screened.rejected, screened.remaining_faults) == (("site-00",), 1, 2)
