"""The defences: every rule of Concordat, the recommended order of screening and rule, and others to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.attacks.compared import NOT_OFFERED, Given, Method
from bench.attacks.hostile import Floats
from bench.attacks.toy import HOSTILE, SITES, Federation
from bench.peers import BYZFL, FLOWER
from concordat.aggregation import AggregationError, Rows, aggregate, gram
from concordat.api.aggregation_rules import PreAggregation, Rule, shortage
from concordat.screening import (
    Alert,
    Candidate,
    Functional,
    FunctionalCheck,
    FunctionalLimits,
    Limits,
    Reason,
    ScreeningError,
    check_norms,
    screen,
)
from concordat.screening.strikes import LASTS, STRIKES

NAMES = [f"site-{number:02}" for number in range(SITES)]
LIMITS = FunctionalLimits(max_loss_increase=3.0, max_trigger_gain=0.3)
"""The defaults of screening.canary."""
THRESHOLDS = (0.3, 0.4, 0.5)
"""Of the trigger gain, which are compared."""
MAX_CANDIDATE_GAIN = 0.4
"""Of the trigger gain of a candidate against the base."""
LOSS = f"loss + {LIMITS.max_loss_increase:g}"
REJECTED = "rejected"
LEAST_SHARE = 0.1
"""Of an equal weight; with less, a rule leaves an update out."""


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


@dataclass
class Weighed(ABC):
    """A rule alone. Where it is a weighted sum, counts the updates that it leaves out, by whether hostile."""

    left_out: Counter[bool] = field(default_factory=Counter, init=False)
    weighed: int = field(default=0, init=False)
    """Rounds in which the rule gave weights."""

    @abstractmethod
    def __call__(self, at: Situation) -> Floats: ...

    def count(self, weights: NDArray[np.float64]) -> None:
        """Take the weights of a round."""
        self.weighed += 1
        for site, weight in enumerate(weights):
            self.left_out[site < HOSTILE] += bool(weight < LEAST_SHARE / SITES)


@dataclass
class Compared(Weighed):
    """A rule that Concordat does not offer."""

    method: Method
    declared: int = HOSTILE
    """Faulty sites to withstand."""

    def __call__(self, at: Situation) -> Floats:
        found, weights = self.method(at.rows, Given(self.declared, at.cap, at.number))
        if weights is not None:
            self.count(weights)
        return np.asarray(found, dtype=np.float32)


@dataclass
class Ruled(Weighed):
    """One of our rules."""

    rule: Rule
    pre: PreAggregation
    declared: int = HOSTILE
    """Faulty sites to withstand."""

    def __call__(self, at: Situation) -> Floats:
        try:
            made = aggregate(
                [named(row) for row in at.rows],
                self.rule,
                self.declared,
                pre=self.pre,
                reference=named(at.reference) if self.rule is Rule.FLTRUST else None,
            )
        except AggregationError:
            # FLTrust, where no update points the reference's way.
            return np.zeros_like(at.parent)
        if made.weights is not None:
            self.count(made.weights)
        return flat(made.tensors)


@dataclass
class Screened:
    """Reject what breaks a promise, charge it to the budget, then combine the rest by the rule.

    With a canary also what that finds: alerts, by which an update that raises two others too is rejected, and its site
    quarantined the second time within a month of a round a day; and a candidate that is refused. Counts by detector and
    by whether the site was hostile: reasons, alerts, and as "gain > 0.3" what the functional check of each update
    measures, also where nothing acts on it.
    """

    rule: Rule
    pre: PreAggregation
    canary: bool
    declared: int = HOSTILE
    counts: bool = True
    """Whether to count what a canary would find, too."""
    found: Counter[tuple[str, bool]] = field(default_factory=Counter)
    asked: Counter[bool] = field(default_factory=Counter)
    """Updates, by whether hostile: fewer than sites and rounds once a site is in quarantine."""
    unchanged: int = 0
    """Rounds that change nothing: more rejections than the budget, too few updates, or a candidate that is refused."""
    alerted: int = 0
    """Rounds with an alert of step 7, which is on by itself; what Functional allows is the contract's to say."""
    rounds: int = 0
    strikes: dict[int, list[int]] = field(default_factory=dict)
    """Rounds in which a site's update was suspected of poisoning."""

    def out(self, number: int) -> set[int]:
        """The sites in quarantine in that round."""
        return {s for s, strikes in self.strikes.items() if sum(number < at + LASTS.days for at in strikes) >= STRIKES}

    def asked_by_an_attacker(self) -> Screened:
        """The same, remembering nothing: with what an attacker knows, which the canary's data is not."""
        return Screened(self.rule, self.pre, canary=False, declared=self.declared, counts=False, strikes=self.strikes)

    def __call__(self, at: Situation) -> Floats:
        self.rounds += 1
        out = self.out(at.number)
        asked = [site for site in range(SITES) if site not in out]
        self.asked.update(site < HOSTILE for site in asked)
        inside = [site for site in asked if not self._exceeds(site, at.rows[site], at.cap)]
        step = self._round(at, inside, len(asked) - len(inside)) if inside else None
        if step is not None and self.canary and self._responds(at.parent + step, at.federation):
            step = None
        self.unchanged += step is None
        return np.zeros_like(at.parent) if step is None else step

    def _round(self, at: Situation, inside: list[int], charged: int) -> Floats | None:
        """The aggregate of what screening leaves of these updates; None if it holds the round."""
        rows = Rows([named(at.rows[site]) for site in inside])
        products = gram(rows)
        measured = at.federation.functional(at.parent, at.rows[inside]) if self.counts else []
        self._count_functional(inside, measured)
        decision = screen(
            [Candidate(NAMES[site], float(norm), site) for site, norm in zip(inside, products.norms, strict=True)],
            products.inner,
            products.distances2,
            max_faulty=self.declared,
            charged_before=charged,
            previous=_cosines(at.rows[inside], at.previous),
            functional=FunctionalCheck(dict(zip((NAMES[site] for site in inside), measured, strict=True)), LIMITS)
            if self.canary
            else None,
        )
        kept = []
        for position, finding in enumerate(decision.findings):
            site = inside[position]
            if finding.reason is Reason.VERIFIED:
                kept.append(position)
            else:
                self._count(finding.reason.value, site)
                self._count(REJECTED, site)
            for alert in finding.alerts:
                self._count(f"{alert.value} alert", site)
        self.alerted += any(set(f.alerts) - {Alert.FUNCTIONAL} for f in decision.findings)
        for name in decision.suspected:
            self.strikes.setdefault(NAMES.index(name), []).append(at.number)
        faults = decision.remaining_faults
        if decision.held or shortage(self.rule, faults, len(kept)) is not None:
            return None
        mixed = aggregate(
            rows.select(kept),
            self.rule,
            faults,
            pre=self.pre,
            gram=products.select(kept),
        )
        return flat(mixed.tensors)

    def _count_functional(self, inside: list[int], measured: list[Functional]) -> None:
        for site, result in zip(inside, measured, strict=False):
            for threshold in THRESHOLDS:
                if result.trigger_gain > threshold:
                    self._count(f"gain > {threshold}", site)
            if result.loss_change > LIMITS.max_loss_increase:
                self._count(LOSS, site)

    def _responds(self, candidate: Floats, federation: Federation) -> bool:
        gain = federation.functional(np.zeros_like(candidate), candidate[None])[0].trigger_gain
        return gain > MAX_CANDIDATE_GAIN

    def _exceeds(self, site: int, row: Floats, cap: float) -> bool:
        try:
            check_norms({"adapter": float(np.linalg.norm(row.astype(np.float64)))}, Limits(cap, None))
        except ScreeningError as error:
            self._count(error.reason.value, site)
            self._count(REJECTED, site)
            return True
        return False

    def _count(self, what: str, site: int) -> None:
        self.found[what, site < HOSTILE] += 1


RULES: tuple[tuple[str, Rule, PreAggregation], ...] = (
    ("mean", Rule.MEAN, PreAggregation.NONE),
    ("trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.NONE),
    ("DnC", Rule.DNC, PreAggregation.NONE),
    ("CAF", Rule.CAF, PreAggregation.NONE),
    ("FLTrust", Rule.FLTRUST, PreAggregation.NONE),
    ("NNM + trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.NNM),
    ("ARC + trimmed mean", Rule.TRIMMED_MEAN, PreAggregation.ARC),
    ("ARC + CAF", Rule.CAF, PreAggregation.ARC),
    ("ARC + DnC", Rule.DNC, PreAggregation.ARC),
    ("NNM + CAF", Rule.CAF, PreAggregation.NNM),
    ("NNM + DnC", Rule.DNC, PreAggregation.NNM),
)
SCREENED = {
    "screening, ARC + DnC": (Rule.DNC, PreAggregation.ARC),
    "screening, NNM + trimmed mean": (Rule.TRIMMED_MEAN, PreAggregation.NNM),
}
RECOMMENDED = "screening, ARC + DnC"
CANARY = f"{RECOMMENDED}, canary"
COMPARED = ("trimmed mean", "NNM + trimmed mean", "DnC", "ARC + DnC", "CAF", "ARC + CAF", "Multi-Krum", "FLAME")
"""With a wrong number of faulty sites."""
_PEERS = (
    ("ByzFL", BYZFL, [name for name in BYZFL if name not in ("Average", "NNM + Median")]),
    ("Flower", FLOWER, [name for name in FLOWER if name not in ("FedAvg", "MultiKrum (serverapp)")]),
)
"""Not the means, which are all the same, nor the second of two rules that differ only in rounding."""


def defences(declared: int = HOSTILE) -> dict[str, Defence]:
    """All of them, by name, with no memory of earlier runs; each is to withstand `declared` faulty sites."""
    out: dict[str, Defence] = {name: Ruled(rule, pre, declared) for name, rule, pre in RULES}
    out.update({name: Compared(method, declared) for name, method in NOT_OFFERED.items()})
    out.update({name: Screened(rule, pre, canary=False, declared=declared) for name, (rule, pre) in SCREENED.items()})
    out[CANARY] = Screened(*SCREENED[RECOMMENDED], canary=True, declared=declared)
    for library, rules, names in _PEERS:
        out.update({f"{library} {name}": _peer(rules[name], declared) for name in names})
    return out


def named(row: Floats) -> dict[str, Floats]:
    """An update as the engine takes it: one tensor."""
    return {"adapter": row}


def flat(tensors: dict[str, Floats]) -> Floats:
    """The update of `named`."""
    return tensors["adapter"]


def _peer(rule: Callable[[NDArray[np.float32], int], NDArray[np.float32]], declared: int) -> Defence:
    return lambda at: np.asarray(rule(at.rows, declared), dtype=np.float32)


def _cosines(rows: Floats, previous: Floats) -> NDArray[np.float64] | None:
    """(n,): cosine of each row to the last aggregate; None where there is none."""
    length = float(np.linalg.norm(previous.astype(np.float64)))
    if length == 0:
        return None
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return np.asarray(rows.astype(np.float64) @ previous / np.maximum(norms * length, 1e-30))
