"""The defences: every rule of Concordat, the recommended order of screening and rule, and the peers' rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bench.attacks.hostile import Floats
from bench.attacks.toy import HOSTILE, SITES, Federation
from bench.peers import BYZFL, FLOWER
from concordat.aggregation import AggregationError, Rows, aggregate, gram
from concordat.api.rules import PreAggregation, Rule
from concordat.screening import Candidate, FunctionalLimits, Limits, Reason, ScreeningError, check_norms, screen

NAMES = [f"site-{number:02}" for number in range(SITES)]
LIMITS = FunctionalLimits(max_loss_increase=1.0, max_trigger_gain=0.3)
"""The defaults of screening.canary."""
THRESHOLDS = (0.3, 0.4, 0.5)
"""Of the trigger gain, which are compared."""
MAX_CANDIDATE_GAIN = 0.5
"""Of the trigger gain of a candidate against the base."""
LOSS = f"loss + {LIMITS.max_loss_increase:g}"


@dataclass(frozen=True)
class Situation:
    """What the hub has when it aggregates."""

    rows: Floats
    """(SITES, P): the updates, the hostile ones first."""
    parent: Floats
    """(P,): the adapter that the updates start from."""
    previous: Floats
    """(P,): the last aggregate; zeros in the first round."""
    cap: float
    """Norm to which sites clip."""
    reference: Floats
    """(P,): the hub's own update, for FLTrust."""
    number: int
    """Of the round."""
    federation: Federation


Defence = Callable[[Situation], Floats]
"""Gives the aggregate (P,)."""


class Check(Enum):
    """What the triggers are tried on, and can refuse."""

    NOTHING = "nothing"
    UPDATES = "each update, against the parent"
    CANDIDATE = "the aggregate, against the base"


@dataclass
class Screened:
    """Reject what breaks a promise, charge it to the budget, then NNM and the trimmed mean: the recommended default.

    Counts what it found, by detector and by whether the site was hostile: reasons, alerts, and as "gain > 0.3" what the
    functional check of each update measures, also where it refuses nothing.
    """

    check: Check
    found: Counter[tuple[str, bool]] = field(default_factory=Counter)
    held: int = 0
    """Rounds that change nothing: more rejections than the budget, or a candidate that is refused."""
    rounds: int = 0
    _history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def __call__(self, at: Situation) -> Floats:
        self.rounds += 1
        inside = [i for i, row in enumerate(at.rows) if not self._exceeds(i, row, at.cap)]
        rows = Rows([named(at.rows[i]) for i in inside])
        products = gram(rows)
        by_update = self.check is Check.UPDATES
        measured = at.federation.functional(at.parent, at.rows[inside])
        for i, result in zip(inside, measured, strict=True):
            for threshold in THRESHOLDS:
                if result.trigger_gain > threshold:
                    self._count(f"gain > {threshold}", i)
            if result.loss_change > LIMITS.max_loss_increase:
                self._count(LOSS, i)
        decision = screen(
            [
                Candidate(NAMES[i], float(norm), tuple(self._history[NAMES[i]]))
                for i, norm in zip(inside, products.norms, strict=True)
            ],
            products.inner,
            products.distances2,
            max_faulty=HOSTILE,
            charged_before=SITES - len(inside),
            previous=_cosines(at.rows[inside], at.previous),
            functional=dict(zip((NAMES[i] for i in inside), measured, strict=True)) if by_update else None,
            functional_limits=LIMITS if by_update else None,
        )
        # The product only raises an alert: here is what it would cost to reject.
        responding = [
            position
            for position, (finding, result) in enumerate(zip(decision.findings, measured, strict=True))
            if by_update and finding.reason is Reason.VERIFIED and result.trigger_gain > LIMITS.max_trigger_gain
        ]
        rejected = decision.rejected + len(responding)
        held = rejected > HOSTILE
        kept = []
        for position, finding in enumerate(decision.findings):
            site = NAMES.index(finding.site)
            if position in responding:
                self._count(Reason.TRIGGER_RESPONSE.value, site)
                self._count("rejected", site)
            elif finding.reason is Reason.VERIFIED:
                kept.append(position)
                self._history[finding.site].append(finding.numbers["relativeNorm"])
            else:
                self._count(finding.reason.value, site)
                self._count("rejected", site)
            for alert in finding.alerts:
                self._count(f"{alert.value} alert", site)
        step = np.zeros_like(at.parent)
        if not held:
            mixed = aggregate(
                rows.select(kept),
                Rule.TRIMMED_MEAN,
                max(HOSTILE - rejected, 0),
                pre=PreAggregation.NNM,
                gram=products.select(kept),
            )
            step = flat(mixed.tensors)
        refused = self.check is Check.CANDIDATE and self._responds(at.parent + step, at.federation)
        self.held += held or refused
        return np.zeros_like(step) if refused else step

    def _responds(self, candidate: Floats, federation: Federation) -> bool:
        gain = federation.functional(np.zeros_like(candidate), candidate[None])[0].trigger_gain
        return gain > MAX_CANDIDATE_GAIN

    def _exceeds(self, site: int, row: Floats, cap: float) -> bool:
        try:
            check_norms({"adapter": float(np.linalg.norm(row.astype(np.float64)))}, Limits(cap, None))
        except ScreeningError as error:
            self._count(error.reason.value, site)
            self._count("rejected", site)
            return True
        return False

    def _count(self, what: str, site: int) -> None:
        self.found[what, site < HOSTILE] += 1


RULES: tuple[tuple[str, Rule, PreAggregation], ...] = (
    ("mean", Rule.MEAN, PreAggregation.NONE),
    ("norm-bounded mean", Rule.NORM_BOUNDED_MEAN, PreAggregation.NONE),
    ("coordinate median", Rule.COORDINATE_MEDIAN, PreAggregation.NONE),
    ("trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.NONE),
    ("Krum", Rule.KRUM, PreAggregation.NONE),
    ("Multi-Krum", Rule.MULTI_KRUM, PreAggregation.NONE),
    ("Bulyan", Rule.BULYAN, PreAggregation.NONE),
    ("geometric median", Rule.GEOMETRIC_MEDIAN, PreAggregation.NONE),
    ("centered clipping", Rule.CENTERED_CLIPPING, PreAggregation.NONE),
    ("MeaMed", Rule.MEAMED, PreAggregation.NONE),
    ("DnC", Rule.DNC, PreAggregation.NONE),
    ("CAF", Rule.CAF, PreAggregation.NONE),
    ("FLTrust", Rule.FLTRUST, PreAggregation.NONE),
    ("FoolsGold", Rule.FOOLSGOLD, PreAggregation.NONE),
    ("FLAME", Rule.FLAME, PreAggregation.NONE),
    ("NNM + trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.NNM),
    ("NNM + median", Rule.COORDINATE_MEDIAN, PreAggregation.NNM),
    ("NNM + geometric median", Rule.GEOMETRIC_MEDIAN, PreAggregation.NNM),
    ("NNM + Krum", Rule.KRUM, PreAggregation.NNM),
    ("bucketing + trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.BUCKETING),
    ("bucketing + geometric median", Rule.GEOMETRIC_MEDIAN, PreAggregation.BUCKETING),
    ("ARC + trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.ARC),
    ("ARC + geometric median", Rule.GEOMETRIC_MEDIAN, PreAggregation.ARC),
)
RECOMMENDED = "screening, NNM + trimmed mean"
FUNCTIONAL = "the same, check of each update"
CANDIDATE = "the same, check of the candidate"
_PEERS = (
    ("ByzFL", BYZFL, [name for name in BYZFL if name not in ("Average", "NNM + Median")]),
    ("Flower", FLOWER, [name for name in FLOWER if name not in ("FedAvg", "MultiKrum (serverapp)")]),
)
"""Not the means, which are all the same, nor the second of two rules that differ only in rounding."""


def defences() -> dict[str, Defence]:
    """All of them, by name, with no memory of earlier runs."""
    out: dict[str, Defence] = {name: _ours(rule, pre) for name, rule, pre in RULES}
    out[RECOMMENDED] = Screened(Check.NOTHING)
    out[FUNCTIONAL] = Screened(Check.UPDATES)
    out[CANDIDATE] = Screened(Check.CANDIDATE)
    for library, rules, names in _PEERS:
        out.update({f"{library} {name}": _peer(rules[name]) for name in names})
    return out


def named(row: Floats) -> dict[str, Floats]:
    """An update as the engine takes it: one tensor."""
    return {"adapter": row}


def flat(tensors: dict[str, Floats]) -> Floats:
    """The update of `named`."""
    return tensors["adapter"]


def _ours(rule: Rule, pre: PreAggregation) -> Defence:
    def defence(at: Situation) -> Floats:
        try:
            made = aggregate(
                [named(row) for row in at.rows],
                rule,
                HOSTILE,
                pre=pre,
                max_norm=at.cap if rule is Rule.NORM_BOUNDED_MEAN else None,
                reference=named(at.reference) if rule is Rule.FLTRUST else None,
                seed=at.number,
            )
        except AggregationError:
            # FoolsGold, where all updates point the same way.
            return np.zeros_like(at.parent)
        return flat(made.tensors)

    return defence


def _peer(rule: Callable[[NDArray[np.float32], int], NDArray[np.float32]]) -> Defence:
    return lambda at: np.asarray(rule(at.rows, HOSTILE), dtype=np.float32)


def _cosines(rows: Floats, previous: Floats) -> NDArray[np.float64] | None:
    """(n,): cosine of each row to the last aggregate; None where there is none."""
    length = float(np.linalg.norm(previous.astype(np.float64)))
    if length == 0:
        return None
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return np.asarray(rows.astype(np.float64) @ previous / np.maximum(norms * length, 1e-30))
