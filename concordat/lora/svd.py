"""Both factors trained: the average of the weight changes, projected to the adapter's rank by a singular value
decomposition (FlexLoRA, Bai et al., NeurIPS 2024), which is the nearest adapter of that rank (Eckart-Young).

No d × k matrix is made: with Q·X = [B_0, ΔB_1, …, ΔB_n] and T·Y = [A_0ᵀ, ΔA_1ᵀ, …, ΔA_nᵀ] orthonormalised, every
weight change is Q·C_i·Tᵀ, and its core C_i, at most (n + 1)r square, has the same norms and distances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from concordat.api.aggregation_rules import Rule, shortage
from concordat.api.round import Factor
from concordat.lora.adapter import Adapter, LoraError, Module
from concordat.lora.deltas import Matrix, both_deltas, mean_partner, side_by_side, stacked
from concordat.lora.products import share
from concordat.tensors import Named, Tensors

DISCARDED_LIMIT = 0.05
"""Largest share of the energy (squared norm) of the aggregated weight change that the projection may lose."""
_ROUNDING = 1e-14
"""Energy below this share of an adapter's is what float32 rounds away."""
_SINGULAR = 1e-12
"""Singular values of the mean below this share of the largest are zero."""
_BLOCK = 1 << 20


class DiscardedEnergy(LoraError):
    """The projection would lose too much of the round. `share` of the energy, most of it in `module`; `rank`: enough
    for every module.
    """

    def __init__(self, share: float, module: str, rank: int) -> None:
        super().__init__(
            f"the projection to the adapter's rank would lose {share:.1%} of the energy of the aggregated weight "
            f"change, most of it in {module}; at most {DISCARDED_LIMIT:.0%} is accepted: use aggregation.lora "
            f"Alternating, or a parent of rank {rank}"
        )
        self.share = share
        self.module = module
        self.rank = rank


@dataclass(frozen=True)
class SvdResult:
    """The new adapter, and what the projection to its rank lost."""

    tensors: Tensors
    """Both factors of every module, in peft's names; the scaling stays the parent's."""
    discarded: float
    """Lost energy of all modules, as a share of the energy of the aggregated weight change."""
    discarded_max: float
    """The largest such share of one module."""


def svd_mean(
    updates: Sequence[Named], weights: Sequence[float], parent: Adapter, ranks: Mapping[str, int] | None = None
) -> SvdResult:
    """Return the parent changed by Σ w_i·D_i, of these `ranks` by module; None: the parent's.

    Updates are deltas of both factors in the parent's shapes. An update of weight 0 does not enter. Raises LoraError
    for other tensors, shapes or values that are not finite; DiscardedEnergy above DISCARDED_LIMIT.
    """
    w = np.asarray(weights, dtype=np.float64)
    used = [update for update, weight in zip(both_deltas(updates, parent), w, strict=True) if weight]
    return _projected(used, parent, ranks, lambda cores: cores.weighted(w[w != 0]))


def svd_trimmed(
    updates: Sequence[Named],
    mixing: Matrix | None,
    max_faulty: int,
    parent: Adapter,
    ranks: Mapping[str, int] | None = None,
) -> SvdResult:
    """Return the parent changed by the coordinate-wise trimmed mean of the cores of D_i, of `ranks` as in svd_mean.

    The cores are turned into the singular vectors of their mean, mixed by `mixing` (rows are mixed updates: NNM; None:
    as they are), and of every coordinate the `max_faulty` largest and smallest values are left out. A trimmed mean
    withstands `max_faulty` liars in any orthonormal basis (Allouah et al., AISTATS 2023), also in one they had a hand
    in. Raises LoraError as svd_mean does, and if there are too few updates.
    """
    both_deltas(updates, parent)
    mixed = np.eye(len(updates)) if mixing is None else np.asarray(mixing, dtype=np.float64)
    if mixed.ndim != 2 or mixed.shape[1] != len(updates):
        raise LoraError(f"mixing has shape {list(mixed.shape)}; it needs a column for each of {len(updates)} updates")
    if why := shortage(Rule.TRIMMED_MEAN, max_faulty, len(mixed)):
        raise LoraError(why)
    return _projected(updates, parent, ranks, lambda cores: cores.trimmed(mixed, max_faulty))


class _Cores:
    """The weight changes of one module in the joint basis: D_i / s = left_basis · C_i · right_basisᵀ."""

    def __init__(self, updates: Sequence[Named], module: Module) -> None:
        self.left_basis, self._left = _orthonormal(stacked(updates, module, Factor.B))
        self.right_basis, self._right = _orthonormal(stacked(updates, module, Factor.A))
        self.parent = self._left[0] @ self._right[0].T

    def weighted(self, weights: Matrix) -> Matrix:
        """Σ w_i·C_i."""
        return side_by_side(self._left) @ side_by_side(mean_partner(self._right, weights)).T

    def trimmed(self, mixing: Matrix, max_faulty: int) -> Matrix:
        """Return the trimmed mean of the mixed cores, by blocks of their rows, so that they are never all there at
        once.
        """
        u, vt = self._turns()
        left, right = u.T @ self._left, vt @ self._right
        out = np.empty((len(u), len(vt)))
        step = max(1, _BLOCK // (max(mixing.shape) * len(vt)))
        for i in range(0, len(u), step):
            values = np.tensordot(mixing, _joined(left[:, i : i + step], right), 1)
            values.sort(axis=0)
            out[i : i + step] = values[max_faulty : len(values) - max_faulty].mean(axis=0)
        return np.asarray(u @ out @ vt)

    def _turns(self) -> tuple[Matrix, Matrix]:
        """U and Vᵀ of the mean core; where it is zero, those of the cores, so that rounding never picks the basis."""
        n = len(self._left) - 1
        u, values, vt = np.linalg.svd(self.weighted(np.full(n, 1 / n)))
        rank = int((values > _SINGULAR * values[0]).sum())
        across = down = 0.0
        for i in range(1, n + 1):
            left, right = self._left[[0, i]], self._right[[0, i]]
            rows, columns = _joined(u[:, rank:].T @ left, right)[0], _joined(left, vt[rank:] @ right)[0]
            across, down = across + rows @ rows.T, down + columns.T @ columns
        u[:, rank:] = u[:, rank:] @ np.linalg.eigh(across)[1]
        vt[rank:] = np.linalg.eigh(down)[1].T @ vt[rank:]
        return u, vt


def _projected(
    updates: Sequence[Named], parent: Adapter, ranks: Mapping[str, int] | None, rule: Callable[[_Cores], Matrix]
) -> SvdResult:
    tensors: Tensors = {}
    lost, changed, shares, spectra = {}, 0.0, {}, []
    for name, module in parent.modules.items():
        cores = _Cores(updates, module)
        change = rule(cores)
        a, b, energies, tail = _factors(cores, cores.parent + change, module.rank if ranks is None else ranks[name])
        tensors[module.tensor_name(Factor.A)], tensors[module.tensor_name(Factor.B)] = a, b
        energy = float(np.square(change).sum())
        shares[name] = share(tail, energy)
        lost[name] = module.scale**2 * tail
        changed += module.scale**2 * energy
        spectra.append(module.scale**2 * energies)
    discarded = share(sum(lost.values()), changed)
    if discarded > DISCARDED_LIMIT:
        raise DiscardedEnergy(discarded, max(lost, key=lost.__getitem__), _enough(spectra, changed))
    return SvdResult(tensors, discarded, max(shares.values()))


def _enough(spectra: Sequence[Matrix], changed: float) -> int:
    """Return the smallest rank of all modules that loses no more than is accepted, of energies by component."""
    width = max(map(len, spectra))
    total = sum((np.pad(one, (0, width - len(one))) for one in spectra), np.zeros(width))
    tails = np.append(np.cumsum(total[::-1])[::-1], 0.0)
    return max(1, int(np.argmax(tails <= DISCARDED_LIMIT * changed + _ROUNDING * tails[0])))


def _factors(cores: _Cores, core: Matrix, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32], Matrix, float]:
    """Return A (rank, k) and B (d, rank) of the core's largest components, the energy of each component, and that of
    those left out.
    """
    u, values, vt = np.linalg.svd(core)
    energies = np.square(values)
    tail = float(energies[rank:].sum())
    values = np.pad(values, (0, max(0, rank - len(values))))[:rank]
    # A component of nothing keeps a direction in A: were both factors zero, no gradient would ever reach it.
    present = np.square(values) > _ROUNDING * energies.sum()
    root = np.sqrt(np.where(present, values, 0.0))
    a, b = np.zeros((rank, len(cores.right_basis))), np.zeros((len(cores.left_basis), rank))
    rows, columns = min(rank, len(vt)), min(rank, len(u))
    a[:rows] = np.where(present, root, 1.0)[:rows, None] * (vt[:rows] @ cores.right_basis.T)
    b[:, :columns] = (cores.left_basis @ u[:, :columns]) * root[:columns]
    # A singular vector has no sign of its own: the largest value of a row of A is positive.
    signs = np.where(a[np.arange(rank), np.abs(a).argmax(axis=1)] < 0, -1.0, 1.0)
    a, b = a * signs[:, None], b * signs
    return a.astype(np.float32), b.astype(np.float32), energies, tail if tail > _ROUNDING * energies.sum() else 0.0


def _joined(left: Matrix, right: Matrix) -> Matrix:
    """C_i of the coordinates (n + 1, p, r) and (n + 1, q, r): (n, p, q)."""
    changed, trained = right[1:].transpose(0, 2, 1), (right[0] + right[1:]).transpose(0, 2, 1)
    return np.asarray(left[0] @ changed + left[1:] @ trained)


def _orthonormal(factors: Matrix) -> tuple[Matrix, Matrix]:
    """Return an orthonormal basis (rows, R) of all columns of (m, rows, r), and the coordinates of each, (m, R, r)."""
    basis, coordinates = np.linalg.qr(side_by_side(factors))
    m, _, rank = factors.shape
    return basis, coordinates.reshape(-1, m, rank).transpose(1, 0, 2)
