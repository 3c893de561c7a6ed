"""The attacks do what their papers define."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.attacks.hostile import (
    ATTACKS,
    FRAMING,
    NONE,
    Attack,
    Floats,
    View,
    Way,
    adaptive,
    alie,
    alie_z,
    at_cap,
    distances2,
    drift,
    gaussian,
    inner_product,
    mimic,
    mimic_victim,
    min_max,
    min_sum,
    noisy,
    norm_matched,
    nothing,
    pausing_backdoor,
    scaled,
    sign_flip,
    slow_backdoor,
    sybil,
)
from bench.attacks.hostile import (
    replay as replayed,
)

CAP = 3.0
CLOSE = 1e-3


def view(seed: int = 0, honest: int = 13, hostile: int = 3, size: int = 40, spread: float = 1.0) -> View:
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(size)

    def rows(count: int) -> Floats:
        return np.asarray(common + spread * rng.standard_normal((count, size)), dtype=np.float32)

    others = rows(honest)
    return View(
        honest=others,
        own=rows(hostile),
        previous=rows(1)[0],
        cap=CAP,
        victim=min(2, honest - 1),
        course=np.asarray(common / np.linalg.norm(common), dtype=np.float32),
        success=0.0,
        rng=np.random.default_rng(seed + 1),
        weakest=lambda: honest - 1,
        answer=lambda sent: np.asarray(np.concatenate([sent, others]).mean(axis=0), dtype=np.float32),
    )


views = st.builds(
    view,
    seed=st.integers(0, 2**16),
    honest=st.integers(2, 20),
    hostile=st.integers(1, 5),
    size=st.integers(1, 60),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 30.0]),
)


@pytest.mark.parametrize(
    ("honest", "hostile", "z"),
    [
        # n = 51: s = 26 − 24 = 2, Φ⁻¹(25/27).
        (27, 24, 1.4461),
        # n = 16: s = 9 − 3 = 6, Φ⁻¹(7/13).
        (13, 3, 0.0966),
        # n = 5: s = 3 − 1 = 2, Φ⁻¹(2/4).
        (4, 1, 0.0),
        # A hostile majority: s would be 0 and z infinite; s = 1, Φ⁻¹(1/2).
        (2, 3, 0.0),
    ],
)
def test_alie_z(honest: int, hostile: int, z: float) -> None:
    assert alie_z(honest, hostile) == pytest.approx(z, abs=1e-3)


def test_alie_is_that_many_deviations_below_the_mean() -> None:
    at = view()
    expected = at.honest.mean(0) - 1.5 * at.honest.std(0)
    assert alie(1.5)(at) == pytest.approx(np.tile(expected, (3, 1)), abs=1e-5)
    assert alie()(at)[0] == pytest.approx(at.honest.mean(0) - alie_z(13, 3) * at.honest.std(0), abs=1e-5)


@given(views, st.sampled_from(Way))
def test_min_max_stays_as_near_as_the_honest_are_to_each_other(at: View, way: Way) -> None:
    sent = min_max(way)(at)[0]
    furthest = np.sqrt(np.square(at.honest.astype(float) - sent).sum(1).max())
    assert furthest <= np.sqrt(distances2(at.honest).max()) * (1 + CLOSE) + CLOSE


@pytest.mark.parametrize("way", Way)
def test_min_max_reaches_its_bound(way: Way) -> None:
    at = view()
    furthest = np.square(at.honest - min_max(way)(at)[0]).sum(1).max()
    assert furthest == pytest.approx(distances2(at.honest).max(), rel=CLOSE)


@given(views, st.sampled_from(Way))
def test_min_sum_stays_as_near_to_all_as_an_honest_one(at: View, way: Way) -> None:
    sent = min_sum(way)(at)[0]
    total = np.sqrt(np.square(at.honest.astype(float) - sent).sum())
    assert total <= np.sqrt(distances2(at.honest).sum(1).max()) * (1 + CLOSE) + CLOSE


@pytest.mark.parametrize("way", Way)
def test_min_sum_reaches_its_bound(way: Way) -> None:
    at = view()
    assert np.square(at.honest - min_sum(way)(at)[0]).sum() == pytest.approx(
        distances2(at.honest).sum(1).max(), rel=CLOSE
    )


def test_reversals() -> None:
    at = view()
    assert np.array_equal(sign_flip(at), -at.own)
    assert inner_product(10)(at) == pytest.approx(np.tile(-10 * at.honest.mean(0), (3, 1)), rel=1e-5)
    sent = sybil(at)
    assert np.linalg.norm(sent, axis=1) == pytest.approx([CAP] * 3, rel=1e-5)
    assert float(sent[0] @ at.honest.mean(0)) < 0


def test_sizes_of_backdoors_and_noise() -> None:
    at = view()
    median = float(np.median(np.linalg.norm(at.honest, axis=1)))
    for craft, norm in ((norm_matched, median), (at_cap, CAP), (gaussian, CAP)):
        assert np.linalg.norm(craft(at), axis=1) == pytest.approx([norm] * 3, rel=1e-5)
    assert np.array_equal(scaled(at), 10 * at.own)


def test_free_riders_and_copies() -> None:
    at = view()
    assert not nothing(at).any()
    assert np.array_equal(replayed(at), np.tile(at.previous, (3, 1)))
    assert np.array_equal(mimic(at), np.tile(at.honest[at.victim], (3, 1)))


def test_mimic_chooses_who_differs_all_the_time_in_one_direction() -> None:
    rounds = np.random.default_rng(0).standard_normal((20, 6, 30)).astype(np.float32)
    rounds[:, 4, 7] += 5
    assert mimic_victim(rounds) == 4


def test_noise_keeps_the_norm_and_ends_the_likeness() -> None:
    at = view()
    plain, sent = sybil(at), noisy(sybil, 0.5)(at)
    assert np.linalg.norm(sent, axis=1) == pytest.approx(np.linalg.norm(plain, axis=1), rel=1e-5)
    cosine = float(sent[0] @ sent[1]) / CAP**2
    # Noise of half the norm: 1 / (1 + 1/4), give or take what 40 random values do.
    assert 0.6 < cosine < 0.95


def test_drift_goes_back_where_training_goes() -> None:
    at = view()
    back = (drift(at) - at.own) @ at.course
    assert back == pytest.approx(-0.7 * np.linalg.norm(at.own, axis=1), rel=1e-4)


def test_a_pausing_backdoor_looks_honest_while_it_works() -> None:
    at = view()
    assert np.array_equal(pausing_backdoor(at), norm_matched(at))
    resting = pausing_backdoor(replace(at, success=0.5))
    assert (resting @ at.honest[at.victim]).min() > 0.5 * float(np.linalg.norm(at.honest[at.victim])) ** 2
    assert np.linalg.norm(slow_backdoor(at), axis=1) == pytest.approx(np.linalg.norm(norm_matched(at), axis=1) / 2)


def test_framers_differ_most_along_the_update_they_aim_at() -> None:
    at = view()
    victim = at.honest[at.weakest()] / np.linalg.norm(at.honest[at.weakest()])
    two, three = (attack.craft(at) for attack in FRAMING)
    assert list(np.sign(two[:2] @ victim)) == [1, -1]
    assert np.array_equal(two[2], at.own[2])
    assert np.abs(three @ victim).min() > 0.9 * CAP
    assert np.linalg.norm(three, axis=1) == pytest.approx([CAP] * 3, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_adaptive_attack_lowers_what_it_optimizes_at_least_as_far_as_the_attacks_it_starts_from(seed: int) -> None:
    at = view(seed)
    mean = at.honest.mean(axis=0)
    reached = float(at.answer(adaptive(at)) @ mean)
    for craft in (inner_product(1.0), inner_product(2.0), min_max(Way.DEVIATION)):
        sent = noisy(craft)(at)
        norms = np.linalg.norm(sent, axis=1, keepdims=True)
        capped = np.asarray(sent * np.minimum(1, at.cap / norms), dtype=np.float32)
        # Both have noise: give or take what that does.
        assert reached <= float(at.answer(capped) @ mean) + 0.1 * float(mean @ mean)
    assert np.linalg.norm(adaptive(at), axis=1).max() <= CAP * (1 + 1e-5)


@given(views, st.sampled_from((*ATTACKS, *FRAMING)))
def test_every_attack_sends_finite_float32_and_changes_nothing_it_is_shown(at: View, attack: Attack) -> None:
    shown = [at.honest.copy(), at.own.copy(), at.previous.copy()]
    sent = attack.craft(at)
    assert sent.shape == at.own.shape
    assert sent.dtype == np.float32
    assert np.isfinite(sent).all()
    assert all(np.array_equal(a, b) for a, b in zip(shown, [at.honest, at.own, at.previous], strict=True))


def test_names_are_unique_and_none_is_first() -> None:
    assert ATTACKS[0] is NONE
    names = [attack.name for attack in (*ATTACKS, *FRAMING)]
    assert len(set(names)) == len(names)
