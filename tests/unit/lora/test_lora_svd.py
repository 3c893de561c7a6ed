"""The averaged weight change at the adapter's rank, against dense float64 references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from concordat.api.round import Factor
from concordat.lora import (
    DISCARDED_LIMIT,
    Adapter,
    DiscardedEnergy,
    LoraError,
    svd_mean,
    svd_trimmed,
)
from concordat.tensors import pad
from tests.unit.lora.adapters import Dense, Named, build, by_module, changes, made, parents, update, weights

Drawn = tuple[Adapter, np.random.Generator]


def _all(parent: Adapter, rank: int = 99) -> dict[str, int]:
    """One rank for all modules; by default one at which nothing is lost."""
    return dict.fromkeys(parent.modules, rank)


def _close(got: Dense, wanted: Dense) -> None:
    assert np.linalg.norm(got - wanted) <= 1e-6 * np.linalg.norm(wanted)


@given(parents(), st.integers(1, 5), st.booleans())
def test_at_full_rank_the_mean_is_exact(drawn: Drawn, n: int, whole: bool) -> None:
    parent, rng = drawn
    ranks = rng.integers(1, 7, n)
    updates = [pad(update(rng, parent, Factor.BOTH, rank=int(r)), parent.tensors(), Factor.BOTH) for r in ranks]
    w = rng.dirichlet(np.ones(n)) * (1 if whole else 0.6)
    result = svd_mean(updates, list(w), parent, _all(parent))
    _close(made(parent, result.tensors), weights(parent) + w @ changes(parent, updates))
    assert (result.discarded, result.discarded_max) == (0, 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_the_projection_is_the_dense_singular_value_decomposition(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    parent = build(rng, {"q": (9, 12, 3), "v": (11, 9, 3)}, zero_b=True, alpha_pattern={"v": 60})
    updates = [update(rng, parent, Factor.BOTH) for _ in range(3)]
    mean = {name: sum(m[name] for m in (by_module(parent, u) for u in updates)) / 3 for name in ("q", "v")}
    nearest, lost, energy = [], {}, {}
    for name, matrix in mean.items():
        u, s, vt = np.linalg.svd(matrix)
        nearest.append(((u[:, : len(s)] * np.where(np.arange(len(s)) < rank, s, 0)) @ vt[: len(s)]).ravel())
        lost[name], energy[name] = np.square(s[rank:]).sum(), np.square(s).sum()
    share = sum(lost.values()) / sum(energy.values())
    if share > DISCARDED_LIMIT:
        with pytest.raises(DiscardedEnergy, match=f"would lose {100 * share:.1f}% of the energy") as refused:
            svd_mean(updates, [1 / 3] * 3, parent, _all(parent, rank))
        assert refused.value.share == pytest.approx(share, rel=1e-6)
        assert refused.value.module == max(lost, key=lambda name: lost[name])
        assert svd_mean(updates, [1 / 3] * 3, parent, _all(parent, refused.value.rank)).discarded <= DISCARDED_LIMIT
        if refused.value.rank > 1:
            with pytest.raises(DiscardedEnergy):
                svd_mean(updates, [1 / 3] * 3, parent, _all(parent, refused.value.rank - 1))
        return
    result = svd_mean(updates, [1 / 3] * 3, parent, _all(parent, rank))
    _close(made(parent, result.tensors), np.concatenate(nearest))
    assert result.discarded == pytest.approx(share, rel=1e-6, abs=1e-12)
    assert result.discarded_max == pytest.approx(max(lost[n] / energy[n] for n in lost), rel=1e-6, abs=1e-12)


def test_the_factors_are_balanced_sorted_and_of_one_sign() -> None:
    rng = np.random.default_rng(0)
    parent = build(rng, {"q": (9, 8, 3)})
    updates = [update(rng, parent, Factor.BOTH, 0.01) for _ in range(3)]
    result = svd_mean(updates, [1 / 3] * 3, parent)
    a, b = result.tensors["q.lora_A.weight"], result.tensors["q.lora_B.weight"]
    assert (a.shape, b.shape) == ((3, 8), (9, 3))
    assert (a.dtype, b.dtype) == (np.dtype(np.float32), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=0), rtol=1e-5)
    assert (np.diff(np.linalg.norm(a, axis=1)) < 0).all()
    assert (a[np.arange(3), np.abs(a).argmax(axis=1)] > 0).all()
    again = svd_mean(updates[::-1], [1 / 3] * 3, parent)
    np.testing.assert_allclose(again.tensors["q.lora_A.weight"], a, atol=1e-5)


def test_a_component_of_nothing_can_still_be_trained() -> None:
    rng = np.random.default_rng(1)
    parent = build(rng, {"q": (9, 8, 4)}, zero_b=True)
    one = pad(update(rng, parent, Factor.BOTH, rank=2), parent.tensors(), Factor.BOTH)
    result = svd_mean([one], [1.0], parent)
    a, b = result.tensors["q.lora_A.weight"], result.tensors["q.lora_B.weight"]
    assert not b[:, 2:].any()
    np.testing.assert_allclose(a[2:] @ a[2:].T, np.eye(2), atol=1e-6)
    _close(made(parent, result.tensors), weights(parent, one))


def test_an_update_of_weight_zero_does_not_enter() -> None:
    rng = np.random.default_rng(2)
    parent = build(rng, {"q": (9, 8, 3)})
    one, huge = update(rng, parent, Factor.BOTH), update(rng, parent, Factor.BOTH, 1e30)
    got = svd_mean([huge, one], [0.0, 1.0], parent)
    _close(made(parent, got.tensors), weights(parent, one))
    nothing = svd_mean([huge, one], [0.0, 0.0], parent)
    _close(made(parent, nothing.tensors), weights(parent))


def test_a_rank_below_the_parents_is_a_loss_however_small_the_change() -> None:
    rng = np.random.default_rng(3)
    parent = build(rng, {"q": (9, 8, 3)})
    still = {name: 0 * t for name, t in update(rng, parent, Factor.BOTH).items()}
    assert svd_mean([still], [1.0], parent).discarded == 0
    with pytest.raises(DiscardedEnergy, match=r"would lose inf% .* most of it in q; at most 5%"):
        svd_mean([still], [1.0], parent, _all(parent, 2))


def test_a_change_of_gauge_loses_nothing_but_rounding() -> None:
    rng = np.random.default_rng(7)
    parent = build(rng, {"q": (9, 8, 3)})
    module, gauge = parent.modules["q"], 3 * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = {
        "q.lora_B.weight": (module.b @ gauge - module.b).astype(np.float32),
        "q.lora_A.weight": (np.linalg.inv(gauge) @ module.a - module.a).astype(np.float32),
    }
    result = svd_mean([turned], [1.0], parent)
    _close(made(parent, result.tensors), weights(parent))
    assert result.discarded == 0


def _trimmed(parent: Adapter, updates: list[Named], mixing: Dense | None, f: int) -> Dense:
    """The definition, densely, module by module."""
    out = []
    for name in parent.modules:
        before = by_module(parent)[name]
        d = np.stack([by_module(parent, u)[name] - before for u in updates])
        u, s, vt = np.linalg.svd(d.mean(axis=0))
        rank = (s > 1e-10 * s[0]).sum()
        # Where the mean is zero: the principal directions of the changes.
        u[:, rank:] = u[:, rank:] @ np.linalg.svd(np.concatenate(list(u[:, rank:].T @ d), axis=1))[0]
        vt[rank:] = np.linalg.svd(np.concatenate(list(d @ vt[rank:].T)))[2] @ vt[rank:]
        turned = u.T @ d @ vt.T
        values = np.sort(turned if mixing is None else np.tensordot(mixing, turned, 1), axis=0)
        out.append((before + u @ values[f : len(values) - f].mean(axis=0) @ vt).ravel())
    return np.concatenate(out)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.booleans(), st.data())
def test_the_trimmed_mean_is_that_of_the_weight_changes_in_the_basis_of_their_mean(
    seed: int, n: int, nnm: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    parent = build(rng, {"q": (6, 7, 7), "v": (7, 5, 2), "w": (12, 4, 3), "x": (30, 20, 2), "y": (4, 12, 3)})
    parent.modules["w"].b[:] = 0
    updates = [update(rng, parent, Factor.BOTH) for _ in range(n)]
    f = data.draw(st.integers(0, (n - 1) // 2))
    mixing = rng.dirichlet(np.ones(n), size=n) if nnm else None
    got = svd_trimmed(updates, mixing, f, parent, _all(parent))
    wanted = _trimmed(parent, list(updates), mixing, f)
    assert np.linalg.norm(made(parent, got.tensors) - wanted) <= 1e-4 * np.linalg.norm(wanted)


def _nnm(values: Dense, f: int) -> Dense:
    distances = np.square(values[:, None] - values[None]).sum(axis=-1)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : len(values) - f]
    mixing = np.zeros((len(values), len(values)))
    np.put_along_axis(mixing, nearest, 1 / (len(values) - f), axis=1)
    return mixing


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 10.0, 1e6]), st.booleans(), st.booleans())
def test_a_hostile_site_of_high_rank_owns_no_component(seed: int, size: float, nnm: bool, flip: bool) -> None:
    # Ranks 4, 4, 8, 8, 16 of heterogeneity-drift, one liar with the components 9 to 16 for itself.
    rng = np.random.default_rng(seed)
    parent = build(rng, {"q": (24, 20, 16)}, zero_b=True)
    ranks = [4, 4, 8, 8]
    honest = [pad(update(rng, parent, Factor.BOTH, 0.1, rank=r), parent.tensors(), Factor.BOTH) for r in ranks]
    if flip:
        liar = {name: -size * np.mean([u[name] for u in honest], axis=0) for name in honest[0]}
    else:
        liar = update(rng, parent, Factor.BOTH, 0.1 * size)
    updates = [*honest, liar]
    all_changes, good = changes(parent, updates), changes(parent, honest)
    mixing = _nnm(all_changes, 1) if nnm else None
    result = svd_trimmed(updates, mixing, 1, parent, _all(parent))
    got = made(parent, result.tensors) - weights(parent)
    # The bound of the trimmed mean, f = 1 of n = 5 (Allouah et al. 2023, proposition 2), with NNM: (lemma 1) below it.
    kappa = 6 * (1 / 3) * (1 + 1 / 3)
    kappa = max(kappa, 8 * (1 / 4) * (kappa + 1)) if nnm else kappa
    spread = np.square(good - good.mean(axis=0)).sum(axis=1).mean()
    assert np.square(got - good.mean(axis=0)).sum() <= kappa * spread * (1 + 1e-6)


def test_the_mean_has_no_such_bound() -> None:
    # The same attack against svd_mean, to show that the test above can fail.
    rng = np.random.default_rng(4)
    parent = build(rng, {"q": (24, 20, 16)}, zero_b=True)
    honest = [pad(update(rng, parent, Factor.BOTH, 0.1, rank=r), parent.tensors(), Factor.BOTH) for r in (4, 4, 8, 8)]
    good = changes(parent, honest)
    spread = math.sqrt(np.square(good - good.mean(axis=0)).sum(axis=1).mean())
    result = svd_mean([*honest, update(rng, parent, Factor.BOTH, 10.0)], [0.2] * 5, parent)
    assert np.linalg.norm(made(parent, result.tensors) - weights(parent) - good.mean(axis=0)) > 100 * spread


def test_many_cores_are_trimmed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("concordat.lora.svd._BLOCK", 10_000)
    rng = np.random.default_rng(5)
    parent = build(rng, {"q": (50, 40, 4)})
    updates = [update(rng, parent, Factor.BOTH, 0.1) for _ in range(32)]
    got = made(parent, svd_trimmed(updates, None, 3, parent, _all(parent)).tensors)
    _close(got, _trimmed(parent, list(updates), None, 3))


def test_the_liars_must_be_few_enough() -> None:
    rng = np.random.default_rng(6)
    parent = build(rng, {"q": (9, 8, 3)})
    updates = [update(rng, parent, Factor.BOTH) for _ in range(4)]
    with pytest.raises(
        LoraError, match=r"TrimmedMean with maxFaultySites 2 needs 2 \* 2 \+ 1 = 5 updates; there are 4"
    ):
        svd_trimmed(updates, None, 2, parent, _all(parent))
    with pytest.raises(LoraError, match=r"mixing has shape \[5, 5\]; it needs a column for each of 4 updates"):
        svd_trimmed(updates, np.eye(5), 1, parent, _all(parent))
    with pytest.raises(LoraError, match=r"update 0: .* pad the update"):
        svd_trimmed([update(rng, parent, Factor.BOTH, rank=2)], None, 0, parent)
