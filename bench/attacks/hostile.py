"""The attacks: what the hostile sites of a round send. Pure functions of what they know.

All are omniscient: they know the honest updates of the round, the norm cap, and each other. Updates are rows of
float32: honest (h, P), hostile (f, P).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """What the hostile sites know when they choose what to send."""

    honest: Floats
    """(h, P): what the honest sites send."""
    own: Floats
    """(f, P): what training gave the hostile sites, on data they may have poisoned, clipped to the cap."""
    previous: Floats
    """(P,): the last aggregate; zeros in the first round."""
    cap: float
    """The norm above which the hub rejects."""
    victim: int
    """Row of `honest` that Mimic copies: chosen once, as `mimic_victim` says."""
    course: Floats
    """(P,): of norm 1, the way that training without attack went."""
    success: float
    """Share of the examples that the attack's trigger turns in the model as it is."""
    rng: np.random.Generator
    answer: Callable[[Floats], Floats]
    """The aggregate (P,) that the hub would make of these hostile updates (f, P); nothing remembers the question."""
    weakest: Callable[[], int]
    """Row of `honest` that comes nearest to the limits of the hub's functional check in this round, or passes them."""


class Poison(Enum):
    """What a hostile site does to its training data."""

    NOTHING = "nothing"
    LABELS = "labels"
    """Label y becomes 9 − y."""
    TRIGGER = "trigger"
    """Half of every batch carries the trigger and the target label."""
    UNLISTED = "unlisted"
    """The same with a trigger that is not in the hub's suite."""


@dataclass(frozen=True)
class Attack:
    """One attack, and the paper that defines it."""

    name: str
    source: str
    craft: Callable[[View], Floats]
    poison: Poison = Poison.NOTHING

    @property
    def backdoor(self) -> bool:
        return self.poison in (Poison.TRIGGER, Poison.UNLISTED)


def as_trained(view: View) -> Floats:
    """Training on poisoned data, and nothing else."""
    return view.own


def sign_flip(view: View) -> Floats:
    """Each its own update, reversed (Li et al., RSA, AAAI 2019)."""
    return -view.own


def inner_product(scale: float) -> Callable[[View], Floats]:
    """IPM: −scale · the honest mean, from all (Xie et al., Fall of Empires, UAI 2019)."""
    return lambda view: _all(view, -scale * view.honest.mean(axis=0))


def alie(z: float | None = None) -> Callable[[View], Floats]:
    """ALIE: honest mean − z · standard deviation, per coordinate (Baruch et al., NeurIPS 2019). None: `alie_z`."""

    def craft(view: View) -> Floats:
        of = alie_z(len(view.honest), len(view.own)) if z is None else z
        return _all(view, view.honest.mean(axis=0) - np.float32(of) * view.honest.std(axis=0))

    return craft


def alie_z(honest: int, hostile: int) -> float:
    """The z of the paper: as many honest sites as make a majority with the hostile are expected to lie further out.

    s = ⌊n/2 + 1⌋ − f, z = Φ⁻¹((n − f − s) / (n − f)). The paper's hostile sites are a minority, so s ≥ 1; where they
    are the majority they need nobody and z would be infinite: s is 1 there too.
    """
    supporters = max(1, (honest + hostile) // 2 + 1 - hostile)
    return NormalDist().inv_cdf((honest - supporters) / honest)


class Way(Enum):
    """The way in which Min-Max and Min-Sum move the honest mean: the perturbations of their paper."""

    DEVIATION = "std"
    UNIT = "unit"
    SIGN = "sign"

    def of(self, honest: Floats) -> Floats:
        """(P,), from the honest updates (h, P)."""
        mean = honest.mean(axis=0)
        if self is Way.DEVIATION:
            return np.asarray(-honest.std(axis=0))
        if self is Way.SIGN:
            return np.asarray(-np.sign(mean), dtype=np.float32)
        return np.asarray(-mean / max(float(np.linalg.norm(mean)), float(np.finfo(np.float32).tiny)), dtype=np.float32)


def min_max(way: Way = Way.DEVIATION) -> Callable[[View], Floats]:
    """The honest mean, moved that way as far as no honest update is further from it than the two furthest honest
    updates are from each other (Shejwalkar and Houmansadr, NDSS 2021, section IV-C1)."""

    def craft(view: View) -> Floats:
        mean, step = view.honest.mean(axis=0), way.of(view.honest)
        offsets = view.honest - mean
        diameter2 = float(distances2(view.honest).max())
        # ‖offset_i‖² − 2γ⟨offset_i, step⟩ + γ²‖step‖² ≤ D² for every i: the least of the positive roots.
        reach = min(_root(float(o @ o) - diameter2, float(o @ step), float(step @ step)) for o in offsets)
        return _all(view, mean + reach * step)

    return craft


def min_sum(way: Way = Way.DEVIATION) -> Callable[[View], Floats]:
    """As `min_max`, but the sum of squared distances to the honest updates is bounded by the largest such sum of an
    honest one (same paper, section IV-C2)."""

    def craft(view: View) -> Floats:
        mean, step = view.honest.mean(axis=0), way.of(view.honest)
        most = float(distances2(view.honest).sum(axis=1).max())
        # The offsets from the mean sum to zero, so the term linear in γ vanishes.
        inside = float(np.square(view.honest - mean).sum())
        reach = _root((inside - most) / len(view.honest), 0.0, float(step @ step))
        return _all(view, mean + reach * step)

    return craft


def mimic(view: View) -> Floats:
    """All copy one honest site, so that it counts f + 1 times (Karimireddy et al., ICLR 2022, appendix B)."""
    return _all(view, view.honest[view.victim])


def mimic_victim(rounds: NDArray[np.float32]) -> int:
    """The site to copy, from the honest updates (T, h, P) of a warm-up without attack: the one furthest out along the
    direction in which the sites differ most, as the paper chooses it."""
    centred = rounds - rounds.mean(axis=1, keepdims=True)
    directions = np.linalg.svd(centred.reshape(-1, rounds.shape[-1]), full_matrices=False)[2]
    return int(np.argmax(np.abs((centred @ directions[0]).sum(axis=0))))


def gaussian(view: View) -> Floats:
    """Noise at the norm cap (Blanchard et al., NeurIPS 2017, who do not bound it)."""
    return _at_norm(view.rng.standard_normal(view.own.shape, dtype=np.float32), view.cap)


def norm_matched(view: View) -> Floats:
    """Training on triggers, scaled to the median honest norm (Bagdasaryan et al., AISTATS 2020, section 3.4)."""
    return _at_norm(view.own, float(np.median(np.linalg.norm(view.honest, axis=1))))


def at_cap(view: View) -> Floats:
    """Training on triggers, scaled to the norm cap: the largest backdoor that is not rejected for its norm."""
    return _at_norm(view.own, view.cap)


def scaled(view: View) -> Floats:
    """Training on triggers, ten times as large (model replacement, Bagdasaryan et al., AISTATS 2020)."""
    return 10 * view.own


def nothing(view: View) -> Floats:
    """Free riding: zeros (Fraboni et al., AISTATS 2021)."""
    return np.zeros_like(view.own)


def replay(view: View) -> Floats:
    """Free riding: the last aggregate, sent back (Fraboni et al., AISTATS 2021)."""
    return _all(view, view.previous)


def sybil(view: View) -> Floats:
    """One attacker under f names: the reversed honest mean at the norm cap, f times (Fung et al., RAID 2020)."""
    return _at_norm(inner_product(1)(view), view.cap)


def noisy(craft: Callable[[View], Floats], share: float = 0.2) -> Callable[[View], Floats]:
    """The attack with independent noise of `share` of its norm on each, at its norm: no longer copies."""

    def noised(view: View) -> Floats:
        sent = craft(view)
        norm = float(np.linalg.norm(sent[0]))
        noise = _at_norm(view.rng.standard_normal(sent.shape, dtype=np.float32), share * norm)
        return _at_norm(sent + noise, norm)

    return noised


def decoy(view: View) -> Floats:
    """One sends noise at the norm cap, to be thrown out for the others, who send −2 · the honest mean with noise:
    against rules that look in one direction only."""
    sent = noisy(inner_product(2))(view)
    return np.concatenate([gaussian(view)[:1], sent[1:]])


def drift(view: View) -> Floats:
    """Training, and a step of 0.7 of its norm back along the way that training goes: small, the same in each round."""
    norms = np.linalg.norm(view.own, axis=1, keepdims=True)
    return np.asarray(view.own - 0.7 * norms * view.course, dtype=np.float32)


def slow_backdoor(view: View) -> Floats:
    """Training on triggers, at half the median honest norm."""
    return np.asarray(norm_matched(view) / 2, dtype=np.float32)


def pausing_backdoor(view: View) -> Floats:
    """Training on triggers at the median norm while the trigger turns less than 40 % of the examples; else an honest
    update with noise, so that the check of the candidate has nothing to refuse."""
    return norm_matched(view) if view.success < 0.4 else noisy(mimic, 0.5)(view)


_SCALES = (1.0, 2.0)
_STEPS = 3


def adaptive(view: View) -> Floats:
    """Optimized against the aggregate: knows the rule, its thresholds and f, and asks them what they would answer.

    Starts with the best of the honest mean moved by one or two median norms in each `Way`, and of its own multiples
    −1 and −2; then takes `_STEPS` projected steps: a random change of a fifth of the norm, projected to the cap and
    kept if the answer's inner product with the honest mean falls. All send it, with noise of a fifth.
    """
    mean = view.honest.mean(axis=0)
    usual = float(np.median(np.linalg.norm(view.honest, axis=1)))

    def sent(vector: Floats) -> Floats:
        norm = min(float(np.linalg.norm(vector)), view.cap)
        noise = _at_norm(view.rng.standard_normal(view.own.shape, dtype=np.float32), 0.2 * norm)
        return _at_norm(_all(view, vector) + noise, norm)

    def gained(updates: Floats) -> float:
        return float(view.answer(updates) @ mean)

    ways = [-mean, *(mean + usual * _at_norm(way.of(view.honest)[None], 1.0)[0] for way in Way)]
    starts = [-scale * mean for scale in _SCALES]
    starts += [mean + scale * (way - mean) for way in ways[1:] for scale in _SCALES]
    tried = [(gained(updates), index, updates) for index, updates in enumerate(sent(start) for start in starts)]
    least, _, best = min(tried, key=lambda found: found[:2])
    for _ in range(_STEPS):
        vector = best.mean(axis=0)
        change = _at_norm(
            view.rng.standard_normal((1, len(vector)), dtype=np.float32), 0.2 * float(np.linalg.norm(vector))
        )
        updates = sent(vector + change[0])
        if (found := gained(updates)) < least:
            least, best = found, updates
    return best


def framing(colluders: int) -> Callable[[View], Floats]:
    """Have an honest site quarantined: the colluders send that one's update and its reverse, at the norm cap, with
    noise, so that the others differ most along it. Aimed at whoever comes nearest to failing the functional check;
    the other hostile sites train honestly."""

    def frame(view: View) -> Floats:
        signs = np.where(np.arange(min(colluders, len(view.own))) % 2, -1, 1).astype(np.float32)[:, None]
        sent = _at_norm(signs * view.honest[view.weakest()], view.cap)
        noise = _at_norm(view.rng.standard_normal(sent.shape, dtype=np.float32), 0.2 * view.cap)
        return np.concatenate([_at_norm(sent + noise, view.cap), view.own[len(sent) :]])

    return frame


_NOISE = ", with independent noise"
_NDSS = "Shejwalkar and Houmansadr 2021"
NONE = Attack("none", "", as_trained)
ATTACKS = (
    NONE,
    Attack("label flip", "Tolpegin et al. 2020", as_trained, Poison.LABELS),
    Attack("sign flip", "Li et al. 2019", sign_flip),
    Attack("IPM ×0.5", "Xie et al. 2019", inner_product(0.5)),
    *(
        Attack(f"IPM ×{scale:g}, noise", f"Xie et al. 2019{_NOISE}", noisy(inner_product(scale)))
        for scale in (0.5, 1, 2, 3)
    ),
    Attack("IPM ×10", "Xie et al. 2019", inner_product(10)),
    Attack("ALIE, noise", f"Baruch et al. 2019{_NOISE}", noisy(alie())),
    Attack("ALIE z=1.5, noise", f"Baruch et al. 2019{_NOISE}", noisy(alie(1.5))),
    Attack("Min-Max", _NDSS, min_max()),
    *(Attack(f"Min-Max {way.value}, noise", f"{_NDSS}{_NOISE}", noisy(min_max(way))) for way in Way),
    *(Attack(f"Min-Sum {way.value}, noise", f"{_NDSS}{_NOISE}", noisy(min_sum(way))) for way in Way),
    Attack("Mimic, noise", f"Karimireddy et al. 2022{_NOISE}", noisy(mimic)),
    Attack("Gaussian", "Blanchard et al. 2017", gaussian),
    Attack("zero", "Fraboni et al. 2021", nothing),
    Attack("replay", "Fraboni et al. 2021", replay),
    Attack("sybils, noise", f"Fung et al. 2020{_NOISE}", noisy(sybil)),
    Attack("decoy", "`decoy`", decoy),
    Attack("drift", "`drift`", drift),
    Attack("adaptive", "`adaptive`", adaptive),
    Attack("backdoor, matched", "Bagdasaryan et al. 2020", norm_matched, Poison.TRIGGER),
    Attack("backdoor, at cap", "Bagdasaryan et al. 2020", at_cap, Poison.TRIGGER),
    Attack("backdoor, ×10", "Bagdasaryan et al. 2020", scaled, Poison.TRIGGER),
    Attack("backdoor, slow", "`slow_backdoor`", slow_backdoor, Poison.TRIGGER),
    Attack("backdoor, pausing", "`pausing_backdoor`", pausing_backdoor, Poison.TRIGGER),
    Attack("backdoor, unlisted", "the same, a trigger the hub does not know", norm_matched, Poison.UNLISTED),
)


def distances2(rows: Floats) -> NDArray[np.float64]:
    """Squared distances (n, n) between the rows (n, P)."""
    differences = rows[:, None].astype(np.float64) - rows[None]
    out: NDArray[np.float64] = np.einsum("ijp,ijp->ij", differences, differences)
    return out


def _all(view: View, vector: Floats) -> Floats:
    return np.repeat(vector[None].astype(np.float32), len(view.own), axis=0)


def _at_norm(rows: Floats, norm: float) -> Floats:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * (norm / np.maximum(norms, np.finfo(np.float32).tiny)), dtype=np.float32)


def _root(constant: float, half_linear: float, square: float) -> float:
    """The positive root γ of square · γ² − 2 half_linear · γ + constant = 0, constant ≤ 0."""
    if square == 0:
        return 0.0
    return (half_linear + float(np.sqrt(max(half_linear**2 - square * constant, 0)))) / square


FRAMING = tuple(Attack(f"framing by {count}", "`framing`", framing(count)) for count in (2, 3))
"""Against honest sites, not the model."""
