"""The toy federation trains what it says, poisons what it says, and measures triggers as the hub does."""

from __future__ import annotations

import numpy as np
import pytest

from bench.attacks.hostile import Poison
from bench.attacks.toy import BATCH, HOSTILE, RATE, SITES, SIZE, SUITE, TARGET, Federation, make


@pytest.fixture(scope="module")
def federation() -> Federation:
    return make(0.1, seed=0)


def loss(federation: Federation, adapter: np.ndarray, rows: np.ndarray) -> float:
    logits = federation.base.logits(adapter, federation.images[rows]).astype(float)
    logits -= logits.max(1, keepdims=True)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return float(-np.log(shares[np.arange(len(rows)), federation.labels[rows]]).mean())


def test_one_step_is_the_gradient(federation: Federation) -> None:
    rng = np.random.default_rng(0)
    parent = (0.1 * rng.standard_normal(SIZE)).astype(np.float32)
    batch = federation.batch(0, Poison.NOTHING)[:1]
    updates = federation.train(parent[None], batch)
    assert updates.shape == (1, SITES + 1, SIZE)
    for direction in rng.standard_normal((5, SIZE)).astype(np.float32):
        step = np.float32(2e-3) * direction / np.linalg.norm(direction)
        slope = loss(federation, parent + step, batch[0, 3]) - loss(federation, parent - step, batch[0, 3])
        assert slope / 2 == pytest.approx(-float(updates[0, 3] @ step) / float(RATE), abs=2e-5)


def test_each_defence_is_trained_by_itself(federation: Federation) -> None:
    parents = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)
    batch = federation.batch(7, Poison.NOTHING)
    together = federation.train(parents, batch)
    for parent, updates in zip(parents, together, strict=True):
        assert federation.train(parent[None], batch)[0] == pytest.approx(updates, abs=1e-4)


def test_only_hostile_sites_poison(federation: Federation) -> None:
    clean = federation.batch(3, Poison.NOTHING)
    for poison in (Poison.LABELS, Poison.TRIGGER, Poison.UNLISTED):
        rows = federation.batch(3, poison)
        assert np.array_equal(rows[:, HOSTILE:], clean[:, HOSTILE:])
        assert np.array_equal(rows[:, :HOSTILE, BATCH // 2 :], clean[:, :HOSTILE, BATCH // 2 :]) == (
            poison is not Poison.LABELS
        )
    flipped = federation.batch(3, Poison.LABELS)[:, :HOSTILE]
    assert np.array_equal(federation.labels[flipped], 9 - federation.labels[clean[:, :HOSTILE]])
    assert np.array_equal(federation.images[flipped], federation.images[clean[:, :HOSTILE]])
    stamped = federation.batch(3, Poison.TRIGGER)[:, :HOSTILE, : BATCH // 2].reshape(-1)
    mask = federation.known.mask.reshape(-1) > 0
    assert (federation.labels[stamped] == TARGET).all()
    assert (federation.images[stamped][:, mask] == 1).all()


def test_the_known_trigger_is_in_the_suite_and_the_other_is_not(federation: Federation) -> None:
    assert federation.known in SUITE
    assert not any(np.array_equal(federation.unlisted.mask, trigger.mask) for trigger in SUITE)


def test_no_change_gains_nothing(federation: Federation) -> None:
    parent = np.random.default_rng(2).standard_normal(SIZE).astype(np.float32)
    found = federation.functional(parent, np.zeros((2, SIZE), np.float32))
    assert [(f.loss_change, f.trigger_gain) for f in found] == [(0.0, 0.0)] * 2


def test_training_on_triggers_is_seen(federation: Federation) -> None:
    parent = np.zeros((1, SIZE), np.float32)
    adapter = parent.copy()
    for number in range(10):
        adapter += federation.train(adapter, federation.batch(number, Poison.TRIGGER))[:, 0]
    assert federation.success(adapter, federation.known)[0] > 0.9
    assert federation.functional(parent[0], adapter)[0].trigger == federation.known.name
    assert federation.functional(parent[0], adapter)[0].trigger_gain > 0.5


def test_every_site_has_examples(federation: Federation) -> None:
    for alpha in (0.1, float("inf")):
        batches = make(alpha, seed=1).batches
        assert all(len(np.unique(batches[:, :, site])) >= 8 for site in range(SITES))
